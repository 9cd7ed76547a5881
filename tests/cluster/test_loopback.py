"""Addresses on loopback: whoever asks for a port gets it, and whoever asks for any gets another."""

import json
import os
import socket
import sys

import pytest

from polynet_keras.cluster import loopback
from polynet_keras.cluster.loopback import keep_to_loopback, keras_variables, loopback_addresses, tf_config


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


@pytest.mark.skipif(sys.platform != "linux", reason="sockets are bound to a device on Linux alone")
@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
def test_a_server_is_kept_to_this_machine(monkeypatch, family):
    """Which its device says; who has come from elsewhere before, here from 127.0.0.2, is cut off."""
    monkeypatch.setattr(loopback, "_is_loopback", lambda host: not host.endswith("127.0.0.2"))
    dual = family == socket.AF_INET6
    with socket.create_server(("", 0), family=family, dualstack_ipv6=dual) as server:
        number = server.getsockname()[1]
        near = socket.create_connection(("127.0.0.1", number), 5)
        far = socket.create_connection(("127.0.0.1", number), 5, source_address=("127.0.0.2", 0))
        with near, far, server.accept()[0] as first, server.accept()[0]:
            assert keep_to_loopback(number)
            assert server.getsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, 16) == b"lo\0"
            assert far.recv(1) == b""
            first.sendall(b"x")
            assert near.recv(1) == b"x"
        socket.create_connection(("127.0.0.1", number), 5).close()
    opened = len(os.listdir("/proc/self/fd"))
    assert not keep_to_loopback(number)  # nothing listens there
    assert len(os.listdir("/proc/self/fd")) == opened


def test_where_a_server_cannot_be_kept(monkeypatch):
    """Another system, and a kernel that asks for a permission."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        number = server.getsockname()[1]
        if sys.platform == "linux":

            def refused(*_):
                raise PermissionError

            class Old(socket.socket):
                setsockopt = refused

            monkeypatch.setattr(socket, "socket", Old)
            assert not keep_to_loopback(number)
            monkeypatch.delattr(socket, "SO_BINDTODEVICE")
        assert not keep_to_loopback(number)


@pytest.mark.parametrize(
    ("host", "near"),
    [
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("::ffff:127.0.0.1", True),
        ("192.0.2.1", False),
        ("::ffff:192.0.2.1", False),
        ("fe80::1%eth0", False),
        ("0.0.0.0", False),
    ],
)
def test_what_is_loopback(host, near):
    assert loopback._is_loopback(host) is near


def test_keras_finds_the_same_workers():
    assert keras_variables(["127.0.0.1:1", "127.0.0.1:2"], 1) == {
        "KERAS_DISTRIBUTION_JOB_ADDRESSES": "127.0.0.1:1,127.0.0.1:2",
        "KERAS_DISTRIBUTION_NUM_PROCESSES": "2",
        "KERAS_DISTRIBUTION_PROCESS_ID": "1",
    }
