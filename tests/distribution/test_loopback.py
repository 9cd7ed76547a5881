"""Addresses on loopback: whoever asks for a port gets it, and whoever asks for any gets another."""

import json
import socket
import sys

import pytest

from polynet_keras.distribution.loopback import loopback_addresses, tf_config


def port(address):
    host, _, number = address.partition(":")
    assert host == "127.0.0.1"
    return int(number)


def test_a_server_takes_its_port():
    with loopback_addresses(3) as addresses:
        assert len(set(addresses)) == 3
        for address in addresses:
            for _ in range(2):  # the workers meet there, then TensorFlow's server follows
                with (
                    socket.create_server(("", port(address))) as server,
                    socket.create_connection(("127.0.0.1", port(address)), timeout=10) as client,
                ):
                    assert server.accept()[1] == client.getsockname()


@pytest.mark.skipif(sys.platform != "linux", reason="ports are reserved on Linux alone")
def test_nobody_else_is_given_the_port():
    with loopback_addresses(300) as addresses:
        reserved = set(map(port, addresses))
        given = set()
        for _ in range(10_000):  # of some 28,000 ports: about a hundred of them would be reserved ones
            with socket.socket() as other:
                other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                other.bind(("127.0.0.1", 0))
                given.add(other.getsockname()[1])
        assert not reserved & given
        assert len(given) > 100


def test_tf_config():
    assert json.loads(tf_config(["127.0.0.1:1", "127.0.0.1:2"], 1)) == {
        "cluster": {"worker": ["127.0.0.1:1", "127.0.0.1:2"]},
        "task": {"type": "worker", "index": 1},
    }
