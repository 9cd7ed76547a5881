"""Connections to the chief until they identify themselves: read as they send, limited, and never waited for."""

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
"""The limit of unidentified connections. Beyond it, the host with most of them loses its oldest one."""
HELLO_SECONDS = 10
"""The limit for each whole line: a guest's identification, the chief's number, the welcome."""


@dataclass
class Guest:
    """A connection to the chief.

    Attributes:
        nonce: the chief's number for this guest. It makes an overheard signed line useless.
        deadline: the time by which the guest's whole first line must arrive.
        context: both sides' numbers; they are part of the signature of the answers.
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
    """The connections to the chief that have not identified themselves; each is read as it sends, without waiting.

    Attributes:
        refused: the number of guests without the secret, and the host of the last one.
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
        """Returns newly identified guests with their identifications; none after a while, or at the deadline."""
        now = time.monotonic()
        for guest in [guest for guest in self._strangers.values() if guest.deadline <= now]:
            self._drop(guest)
        until = min([deadline, *(guest.deadline for guest in self._strangers.values())])
        found = []
        for event, _ in self._selector.select(max(0.0, until - now)):
            if event.fileobj is self._listener:
                self._let_in(deadline)
            elif event.fileobj in self._strangers:  # it may just have been dropped
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
        except OSError:  # the guest has left, or there are no free file descriptors at the moment
            time.sleep(0.01)
            return
        guest = Guest(connection, address[0], min(deadline, time.monotonic() + HELLO_SECONDS))
        connection.setblocking(False)
        challenge = {"greeting": GREETING, "nonce": guest.nonce, "secret": bool(self._key)}
        try:
            connection.send(json.dumps(challenge).encode() + b"\n")  # does not block: the buffer is empty
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
        """Returns a guest's identification when its line is complete. Closes the connection after any other line."""
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
            self._drop(guest)  # for example a port scanner
            return None
        guest.context = f"{guest.nonce} {hello['nonce']}"
        guest.data.clear()
        welcome = {"greeting": GREETING, "welcome": True}
        with contextlib.suppress(OSError):  # if it is gone, that is noticed when the last guest arrives
            guest.connection.send(sealed(welcome, f"welcome {guest.context}", self._key))
        del self._strangers[guest.connection]
        self._selector.unregister(guest.connection)
        return hello

    def _refuse(self, guest: Guest) -> None:
        """Answers a guest that may be a worker with another secret; a stranger learns nothing from the answer."""
        if not self.refused[0]:
            logging.warning(
                "a process at %s says that it is a worker, but does not know %s", guest.host, SECRET_VARIABLE
            )
        self.refused = self.refused[0] + 1, guest.host
        with contextlib.suppress(OSError):
            guest.connection.send(json.dumps({"greeting": GREETING, "refused": "secret"}).encode() + b"\n")

    def _drop(self, guest: Guest) -> None:
        del self._strangers[guest.connection]
        self._selector.unregister(guest.connection)
        guest.connection.close()
