"""All addresses of a server are tried, in a bounded time."""

import socket
import time

import pytest
import requests

from polynet_keras.pretrained import reaching


@pytest.fixture
def port():
    """Of a server that takes connections, of each address of this machine."""
    with socket.create_server(("", 0)) as server:
        yield server.getsockname()[1]


@pytest.fixture
def addresses(monkeypatch):
    """Lets a name have addresses, of which some never answer."""

    def set_addresses(port, *hosts):
        def found(host, *arguments, **options):
            return [
                (socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM, 6, "", (host, port))
                for host in hosts
            ]

        connected = reaching._connected

        def dead(address, seconds):
            if address[-1][0].startswith(("192.0.2.", "2001:db8:")):
                time.sleep(seconds)
                raise TimeoutError("timed out")
            return connected(address, seconds)

        monkeypatch.setattr(reaching.socket, "getaddrinfo", found)
        monkeypatch.setattr(reaching, "_connected", dead)

    return set_addresses


@pytest.mark.parametrize(
    "hosts",
    [
        ("2001:db8::1", "127.0.0.1"),
        ("192.0.2.1", "127.0.0.1"),
        (
            "2001:db8::1",
            "2001:db8::2",
            "2001:db8::3",
            "2001:db8::4",
            "192.0.2.1",
            "192.0.2.2",
            "192.0.2.3",
            "127.0.0.1",
        ),
        ("127.0.0.2", "2001:db8::1", "127.0.0.1"),
        ("127.0.0.1", "2001:db8::1"),
    ],
    ids=["IPv6 is dead", "the first is dead", "only the last lives", "refused, dead, alive", "the first lives"],
)
def test_all_addresses_of_a_server_are_tried(port, addresses, hosts):
    addresses(port, *hosts)
    start = time.monotonic()
    reaching.reach("http://weights.invalid/file", 0.5)
    assert time.monotonic() - start < 0.5


@pytest.mark.parametrize(
    ("hosts", "message", "least"),
    [
        (("2001:db8::1", "192.0.2.1", "192.0.2.2"), "no connection within 0.3 s", 0.3),
        (("127.0.0.1", "127.0.0.1"), "Connection refused", 0),
        (("127.0.0.1", "2001:db8::1"), "Connection refused", 0.3),
        ((), "the server has no address", 0),
    ],
    ids=["all dead", "all refused", "refused and dead", "none"],
)
def test_a_server_without_a_living_address_is_given_up_in_time(addresses, hosts, message, least):
    addresses(9, *hosts)
    start = time.monotonic()
    with pytest.raises(requests.ConnectionError, match=message):
        reaching.reach("http://weights.invalid/file", 0.3)
    assert least - 0.01 <= time.monotonic() - start < least + 0.2


def test_the_families_of_addresses_alternate():
    found = [(6, "a"), (6, "b"), (6, "c"), (4, "d")]
    assert reaching._alternating(found) == [(6, "a"), (4, "d"), (6, "b"), (6, "c")]


def test_only_the_first_connection_stays_open(addresses, port, monkeypatch):
    addresses(port, "127.0.0.1", "127.0.0.1", "127.0.0.1")
    opened = []
    connected = reaching._connected

    def slow(address, seconds):
        time.sleep(0.05)
        opened.append(connected(address, seconds))
        return opened[-1]

    monkeypatch.setattr(reaching, "_connected", slow)
    monkeypatch.setattr(reaching, "ADDRESS_DELAY", 0.01)
    first = reaching._first_connected(socket.getaddrinfo("weights.invalid"), time.monotonic() + 1)
    for _ in range(100):
        if len(opened) == 3 and sum(connection.fileno() >= 0 for connection in opened) == 1:
            break
        time.sleep(0.01)
    assert [connection for connection in opened if connection.fileno() >= 0] == [first]
    first.close()


def test_the_limit_of_requests_reads_like_ours():
    """Both have the same seconds: either may be the first."""

    def late():
        raise requests.ReadTimeout("Read timed out. (read timeout=0.4)")

    with pytest.raises(requests.Timeout, match=r"\Athe server is silent for 5 s\Z"):
        reaching.within(5, late)
