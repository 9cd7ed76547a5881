"""A cluster on this machine: addresses on loopback, and servers that other machines do not reach."""

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
    """So many addresses, `127.0.0.1:port`, with ports that are free.

    On Linux nobody else is given them while inside: a socket that is bound and does not listen is in nobody's way who
    asks for its port with SO_REUSEADDR, as servers do. Elsewhere another program may take one before the worker does.
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
    """The value of TF_CONFIG for a worker, counted from 0."""
    return json.dumps({"cluster": {"worker": list(addresses)}, "task": {"type": "worker", "index": worker}})


def keep_to_loopback(port: int) -> bool:
    """Closes this process's server at a port to other machines, and ends their connections to it.

    TensorFlow's server listens on all addresses, whatever its own is, and nothing tells it otherwise; so the device
    that its socket hears is set afterwards.

    Returns:
        Whether that could be done: it takes Linux 5.7.
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
    for one in _sockets(port):  # somebody may have come before
        with contextlib.suppress(OSError):  # it listens, or its other end is gone
            if not _is_loopback(one.getpeername()[0]):
                one.shutdown(socket.SHUT_RDWR)
    return listens


def _sockets(port: int) -> Iterator[socket.socket]:
    """This process's sockets of TCP with that port, whoever opened them."""
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            # The duplicate of a file that is no socket would stay open.
            if not stat.S_ISSOCK(os.fstat(int(name)).st_mode):
                continue
            with socket.socket(fileno=os.dup(int(name))) as one:
                is_tcp = one.family in (socket.AF_INET, socket.AF_INET6) and one.type == socket.SOCK_STREAM
                if is_tcp and one.getsockname()[1] == port:
                    yield one


def _is_loopback(host: str) -> bool:
    address = ipaddress.ip_address(host.partition("%")[0])
    return (getattr(address, "ipv4_mapped", None) or address).is_loopback
