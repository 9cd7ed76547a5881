"""Who has connected to the chief and not yet said who it is."""

import contextlib
import json
import socket
import time

from polynet_keras.cluster.entrance import GREETING, MAX_STRANGERS, Entrance


def test_a_host_with_many_connections_pushes_out_its_own():
    """On an entrance of its own: connections of this machine are all of one host."""
    with socket.create_server(("127.0.0.1", 0)) as listener, Entrance(listener, b"") as entrance:
        address = listener.getsockname()
        with contextlib.ExitStack() as stack:
            honest = stack.enter_context(socket.create_connection(address))
            entrance.next(time.monotonic() + 5)
            (guest,) = entrance._strangers.values()
            guest.host = "192.0.2.1"
            for _ in range(3 * MAX_STRANGERS):
                stack.enter_context(socket.create_connection(address))
                entrance.next(time.monotonic() + 5)
            assert len(entrance._strangers) == MAX_STRANGERS
            assert guest.connection in entrance._strangers
            assert honest.recv(1000).endswith(b"\n")
            hello = {"greeting": GREETING, "nonce": "0" * 32}
            honest.sendall(json.dumps(hello).encode() + b"\n")
            assert [found for _, found in entrance.next(time.monotonic() + 5)] == [hello]
