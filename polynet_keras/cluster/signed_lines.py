"""Lines of JSON between two processes, signed where they share a secret."""

import hashlib
import hmac
import json
import re
import socket
import time

SECRET_VARIABLE = "POLYNET_JOB_SECRET"
MIN_SECRET = 16
"""Characters: of a shorter one, who listens to a meeting could find out by trying."""
MAX_LINE = 1 << 20


def key_of(secret: str) -> bytes:
    """Empty for no secret."""
    secret = secret.strip()  # of a file, with the end of its line
    if 0 < len(secret) < MIN_SECRET:
        raise ValueError(
            f"{SECRET_VARIABLE} has {len(secret)} characters; expected at least {MIN_SECRET}, such as what "
            "`openssl rand -hex 32` prints"
        )
    return secret.encode()


def sealed(message: dict, context: str, key: bytes) -> bytes:
    """A line of JSON, after its signature where there is a key."""
    body = json.dumps(message).encode()
    return (_signature(body, context, key) + b" " if key else b"") + body + b"\n"


def opened(line: bytes, context: str = "", key: bytes = b"") -> dict | None:
    """What `sealed` made a line of, or None: it is something else, or signed by nobody who knows the key."""
    if key:
        signature, _, line = line.partition(b" ")
        if not hmac.compare_digest(signature, _signature(line, context, key)):
            return None
    try:
        message = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return message if isinstance(message, dict) else None


def _signature(body: bytes, context: str, key: bytes) -> bytes:
    return hmac.new(key, context.encode(errors="replace") + b" " + body, hashlib.sha256).hexdigest().encode()


def is_nonce(value: object) -> bool:
    """Whether it is as `secrets.token_hex(16)` makes them: signed words must not be read in two ways."""
    return isinstance(value, str) and re.fullmatch("[0-9a-f]{32}", value) is not None


class Lines:
    """The lines that come on a connection."""

    def __init__(self, connection: socket.socket):
        self._connection, self._data = connection, bytearray()

    def next(self, deadline: float) -> bytes:
        """What comes until the end of a line, of the connection, or of the time; raises `OSError` if that breaks."""
        while b"\n" not in self._data and len(self._data) < MAX_LINE:
            left = deadline - time.monotonic()
            if left <= 0:  # however fast the bytes come
                break
            self._connection.settimeout(left)
            try:
                more = self._connection.recv(1 << 16)
            except TimeoutError:
                break
            if not more:
                break
            self._data += more
        line, _, self._data = self._data.partition(b"\n")
        return bytes(line)
