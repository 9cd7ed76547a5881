"""Reaching a server in a bounded time: its name's look-up, each of its addresses, and its silence."""

import itertools
import queue
import socket
import threading
import time
import urllib.parse
from collections.abc import Callable
from typing import Any, TypeVar

import requests
import urllib3
from absl import logging

ADDRESS_DELAY = 0.25
"""Seconds after which the next address is tried beside the one that does not answer (RFC 8305)."""
NOTICE = 3.0
"""Seconds of waiting after which a line says for what."""

Address = tuple[Any, ...]
"""As `socket.getaddrinfo` has it: family, type, protocol, name, address."""

Result = TypeVar("Result")


def reach(url: str, seconds: float) -> None:
    """Raises a `requests.ConnectionError` unless the server of a URL, or its proxy, takes a connection in time.

    The look-up of a name alone may take half a minute where there is no network, and has no limit of its own.
    """
    try:
        proxy = requests.utils.select_proxy(url, requests.utils.get_environ_proxies(url))
        parts = urllib.parse.urlsplit(requests.utils.prepend_scheme_if_needed(proxy, "http") if proxy else url)
        port = parts.port or {"http": 80, "https": 443}.get(parts.scheme)
        if not parts.hostname or port is None:
            return  # `requests` says what is wrong with it
        parts.hostname.encode("idna")
    except (ValueError, requests.RequestException, urllib3.exceptions.HTTPError):
        return
    ends = time.monotonic() + seconds
    try:
        found = within(seconds, lambda: socket.getaddrinfo(parts.hostname, port, type=socket.SOCK_STREAM))
        _first_connected(_alternating(found), ends).close()
    except (requests.Timeout, TimeoutError):
        raise requests.ConnectionError(f"no connection within {seconds:.1f} s") from None
    except OSError as error:
        raise requests.ConnectionError(error) from None


def _alternating(addresses: list[Address]) -> list[Address]:
    """The addresses of a server, IPv4 and IPv6 in turn: all of one kind may be dead."""
    families = list(dict.fromkeys(address[0] for address in addresses))
    sorted_out = [[address for address in addresses if address[0] == family] for family in families]
    return [address for row in itertools.zip_longest(*sorted_out) for address in row if address is not None]


def _first_connected(addresses: list[Address], ends: float) -> socket.socket:
    """A connection to the address that answers first; each has a short while before the next is tried beside it.

    Raises:
        OSError: none did until `ends`, of `time.monotonic`: that of the first address that failed, or a `TimeoutError`.
    """
    results: queue.SimpleQueue = queue.SimpleQueue()
    decided = threading.Lock()  # taken by the first connection, or by the timeout

    def connect(address: Address) -> None:
        try:
            connection = _connected(address, max(0.001, ends - time.monotonic()))
        except Exception as error:
            results.put((None, error))
            return
        if decided.acquire(blocking=False):
            results.put((connection, None))
        else:
            connection.close()

    delay = min(ADDRESS_DELAY, (ends - time.monotonic()) / (len(addresses) + 1))
    left, running, failure = iter(addresses), 0, None
    while True:
        address = next(left, None)
        if address is not None:
            threading.Thread(target=connect, args=(address,), daemon=True).start()
            running += 1
        elif not running:
            raise failure or OSError("the server has no address")
        remaining = max(0.0, ends - time.monotonic())
        try:
            connection, error = results.get(timeout=remaining if address is None else min(delay, remaining))
        except queue.Empty:
            if time.monotonic() < ends:
                continue
            if decided.acquire(blocking=False):
                raise failure or TimeoutError("timed out") from None
            connection, error = results.get()
            while connection is None:
                connection, error = results.get()
        if connection is not None:
            return connection
        running, failure = running - 1, failure or error


def _connected(address: Address, seconds: float) -> socket.socket:
    family, kind, protocol, _, place = address
    connection = socket.socket(family, kind, protocol)
    try:
        connection.settimeout(seconds)
        connection.connect(place)
    except BaseException:
        connection.close()
        raise
    return connection


def within(seconds: float, function: Callable[[], Result], waiting_for: str | None = None) -> Result:
    """Returns a function's result or raises its error; a `requests.Timeout` if it takes longer, without waiting on.

    Args:
        waiting_for: what a line says is being waited for, when it has taken `NOTICE`.
    """
    results: queue.SimpleQueue = queue.SimpleQueue()

    def work() -> None:
        try:
            results.put((function(), None))
        except Exception as error:
            results.put((None, error))

    threading.Thread(target=work, daemon=True).start()
    try:
        try:
            result, error = results.get(timeout=seconds if waiting_for is None else min(NOTICE, seconds))
        except queue.Empty:
            if waiting_for is None or seconds <= NOTICE:
                raise
            logging.warning("waiting for %s, at most %.0f s more", waiting_for, seconds - NOTICE)
            result, error = results.get(timeout=seconds - NOTICE)
    except queue.Empty:
        raise requests.Timeout(f"the server is silent for {seconds:.3g} s") from None
    if isinstance(error, requests.ReadTimeout):  # requests has the same limit, and may be the first to see it
        raise requests.Timeout(f"the server is silent for {seconds:.3g} s") from None
    if error is not None:
        raise error
    return result
