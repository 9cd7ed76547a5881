"""Who has connected to the chief, until it has said who it is: read as it sends, limited, and never waited for."""

import contextlib
import json
import secrets
import selectors
import socket
import time
from collections import Counter
from dataclasses import dataclass, field

from absl import logging

from polynet_keras.cluster.signed_lines import MAX_LINE, SECRET_VARIABLE, is_nonce, opened, sealed

GREETING = "polynet_keras rendezvous"
MAX_STRANGERS = 64
"""Connections that have not said who they are. Of more, the oldest one is closed of the host that has most of them."""
HELLO_SECONDS = 10
"""For a guest to say who it is, for the chief to send its number, to welcome: for a whole line, however it comes."""


@dataclass
class Guest:
    """A connection to the chief.

    Attributes:
        nonce: the chief's number; a signed line that was overheard is of no use without it.
        deadline: for the whole of its first line.
        context: both sides' numbers; what it is told is signed with them.
        process: the number of the process at the other end.
    """

    connection: socket.socket
    host: str
    deadline: float
    nonce: str = field(default_factory=lambda: secrets.token_hex(16))
    data: bytearray = field(default_factory=bytearray)
    context: str = ""
    process: object = None


class Entrance:
    """Who has connected to the chief and not yet said who it is; each is read as it sends, and none is waited for.

    Attributes:
        refused: guests that did not know the secret, and the last one's host.
    """

    def __init__(self, listener: socket.socket, key: bytes):
        self._listener, self._key = listener, key
        self._selector = selectors.DefaultSelector()
        self._strangers: dict[socket.socket, Guest] = {}
        self.refused: tuple[int, str] = 0, ""

    def __enter__(self) -> "Entrance":
        self._listener.setblocking(False)
        self._selector.register(self._listener, selectors.EVENT_READ)
        return self

    def __exit__(self, *error) -> None:
        for guest in list(self._strangers.values()):
            self._drop(guest)
        self._selector.close()

    def next(self, deadline: float) -> list[tuple[Guest, dict]]:
        """Guests who have said who they are, with what they said; none after a while, or at the deadline."""
        now = time.monotonic()
        for guest in [guest for guest in self._strangers.values() if guest.deadline <= now]:
            self._drop(guest)
        until = min([deadline, *(guest.deadline for guest in self._strangers.values())])
        found = []
        for event, _ in self._selector.select(max(0.0, until - now)):
            if event.fileobj is self._listener:
                self._let_in(deadline)
            elif event.fileobj in self._strangers:  # it may have had to go a moment ago
                guest = self._strangers[event.fileobj]
                hello = self._heard(guest)
                if hello is not None:
                    found.append((guest, hello))
        return found

    def _let_in(self, deadline: float) -> None:
        try:
            connection, address = self._listener.accept()
        except BlockingIOError:
            return
        except OSError:  # it is gone already, or there are no file descriptors left for a moment
            time.sleep(0.01)
            return
        guest = Guest(connection, address[0], min(deadline, time.monotonic() + HELLO_SECONDS))
        connection.setblocking(False)
        challenge = {"greeting": GREETING, "nonce": guest.nonce, "secret": bool(self._key)}
        try:
            connection.send(json.dumps(challenge).encode() + b"\n")  # into a buffer that is empty
        except OSError:
            connection.close()
            return
        self._strangers[connection] = guest
        self._selector.register(connection, selectors.EVENT_READ)
        if len(self._strangers) > MAX_STRANGERS:
            counts = Counter(guest.host for guest in self._strangers.values())
            most = max(counts.values())
            self._drop(next(guest for guest in self._strangers.values() if counts[guest.host] == most))

    def _heard(self, guest: Guest) -> dict | None:
        """What a guest says of itself, once its line is whole; who says something else is closed."""
        try:
            more = guest.connection.recv(1 << 16)
        except BlockingIOError:
            return None
        except OSError:
            more = b""
        guest.data += more
        if b"\n" not in more:
            if not more or len(guest.data) >= MAX_LINE:
                self._drop(guest)
            return None
        line = bytes(guest.data.partition(b"\n")[0])
        hello = opened(line, f"hello {guest.nonce}", self._key)
        if hello is None or hello.get("greeting") != GREETING or not is_nonce(hello.get("nonce")):
            if self._key and GREETING.encode() in line:
                self._refuse(guest)
            self._drop(guest)  # a port scanner, say
            return None
        guest.context = f"{guest.nonce} {hello['nonce']}"
        guest.data.clear()
        welcome = {"greeting": GREETING, "welcome": True}
        with contextlib.suppress(OSError):  # it is gone, as is found when the last one comes
            guest.connection.send(sealed(welcome, f"welcome {guest.context}", self._key))
        del self._strangers[guest.connection]
        self._selector.unregister(guest.connection)
        return hello

    def _refuse(self, guest: Guest) -> None:
        """Tells one who may be a worker with another secret; a stranger learns nothing by it."""
        if not self.refused[0]:
            logging.warning(
                "a process at %s says that it is a worker, and does not know %s", guest.host, SECRET_VARIABLE
            )
        self.refused = self.refused[0] + 1, guest.host
        with contextlib.suppress(OSError):
            guest.connection.send(json.dumps({"greeting": GREETING, "refused": "secret"}).encode() + b"\n")

    def _drop(self, guest: Guest) -> None:
        del self._strangers[guest.connection]
        self._selector.unregister(guest.connection)
        guest.connection.close()
