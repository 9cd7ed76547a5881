"""A cluster on this machine: loopback addresses, and servers that other machines cannot reach."""

import contextlib
import ipaddress
import json
import os
import socket
import stat
import sys
from collections.abc import Iterator, Sequence


@contextlib.contextmanager
def loopback_addresses(count: int) -> Iterator[list[str]]:
    """Yields `count` addresses, `127.0.0.1:port`, with free ports.

    On Linux the ports are reserved inside the block: a bound socket that does not listen keeps a port from other
    programs, but not from servers that ask for this port with SO_REUSEADDR. Elsewhere another program may take a port
    before the worker does.
    """
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for reserved in sockets:
            reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            reserved.bind(("127.0.0.1", 0))
        addresses = [f"127.0.0.1:{reserved.getsockname()[1]}" for reserved in sockets]
        if sys.platform != "linux":
            stack.close()
        yield addresses


def tf_config(addresses: Sequence[str], worker: int) -> str:
    """Returns the value of TF_CONFIG for a worker, counted from 0."""
    return json.dumps({"cluster": {"worker": list(addresses)}, "task": {"type": "worker", "index": worker}})


def keras_variables(addresses: Sequence[str], worker: int) -> dict[str, str]:
    """Returns what `keras.distribution.initialize()` reads, for programs on JAX."""
    names = ("JOB_ADDRESSES", "NUM_PROCESSES", "PROCESS_ID")
    values = (",".join(addresses), str(len(addresses)), str(worker))
    return {f"KERAS_DISTRIBUTION_{name}": value for name, value in zip(names, values, strict=True)}


def keep_to_loopback(port: int) -> bool:
    """Closes this process's server at a port to other machines, and ends their connections to it.

    TensorFlow's server listens on all addresses, whatever its own is, and has no setting for that. This function binds
    its socket to the loopback device afterwards.

    Returns:
        Whether it succeeded: it needs Linux 5.7.
    """
    if not hasattr(socket, "SO_BINDTODEVICE"):
        return False
    listens = False
    try:
        for one in _sockets(port):
            if one.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                one.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"lo\0")
                listens = True
    except PermissionError:  # before Linux 5.7
        return False
    for one in _sockets(port):  # another machine may have connected before
        with contextlib.suppress(OSError):  # a listening socket, or one whose peer is gone
            if not _is_loopback(one.getpeername()[0]):
                one.shutdown(socket.SHUT_RDWR)
    return listens


def _sockets(port: int) -> Iterator[socket.socket]:
    """Yields this process's TCP sockets with that port, whichever code opened them."""
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            # The duplicate of a file that is not a socket would stay open.
            if not stat.S_ISSOCK(os.fstat(int(name)).st_mode):
                continue
            with socket.socket(fileno=os.dup(int(name))) as one:
                is_tcp = one.family in (socket.AF_INET, socket.AF_INET6) and one.type == socket.SOCK_STREAM
                if is_tcp and one.getsockname()[1] == port:
                    yield one


def _is_loopback(host: str) -> bool:
    address = ipaddress.ip_address(host.partition("%")[0])
    return (getattr(address, "ipv4_mapped", None) or address).is_loopback
