"""A cluster on this machine: addresses on loopback."""

import contextlib
import json
import socket
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
