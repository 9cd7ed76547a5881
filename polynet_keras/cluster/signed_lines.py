"""Lines of JSON between two processes, signed if they share a secret."""

import hashlib
import hmac
import json
import re
import socket
import time

from polynet_keras.basics.names import number_of

SECRET_VARIABLE = "POLYNET_JOB_SECRET"
MIN_SECRET = 16
"""The smallest number of characters. An eavesdropper could guess a shorter secret."""
MAX_LINE = 1 << 20


def key_of(secret: str) -> bytes:
    """Returns the key of a secret; an empty key for no secret."""
    secret = secret.strip()  # a secret from a file ends with a line break
    if 0 < len(secret) < MIN_SECRET:
        raise ValueError(
            f"{SECRET_VARIABLE} has {number_of(len(secret), 'character')}; expected at least {MIN_SECRET}, such as the "
            "output of `openssl rand -hex 32`"
        )
    return secret.encode()


def sealed(message: dict, context: str, key: bytes) -> bytes:
    """Returns a line of JSON, after its signature if there is a key."""
    body = json.dumps(message).encode()
    return (_signature(body, context, key) + b" " if key else b"") + body + b"\n"


def opened(line: bytes, context: str = "", key: bytes = b"") -> dict | None:
    """Returns the message of a line that `sealed` made, or None if it is another line or its signature is wrong."""
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
    """Whether a value looks like one of `secrets.token_hex(16)`. Other values could make signed text ambiguous."""
    return isinstance(value, str) and re.fullmatch("[0-9a-f]{32}", value) is not None


class Lines:
    """The lines that arrive on a connection."""

    def __init__(self, connection: socket.socket):
        self._connection, self._data = connection, bytearray()

    def next(self, deadline: float) -> bytes:
        """Returns the bytes up to the end of the line, the connection or the time. Raises `OSError` if it breaks."""
        while b"\n" not in self._data and len(self._data) < MAX_LINE:
            left = deadline - time.monotonic()
            if left <= 0:  # also if bytes keep arriving
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
