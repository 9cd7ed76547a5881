"""The access log: a thread writes a line for each request, so that a slow disk or reader does not delay an answer."""

import contextlib
import json
import logging as stdlib_logging
import queue
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import datetime
from logging.handlers import WatchedFileHandler

from absl import logging
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from polynet_keras.basics.names import shown
from polynet_keras.deployment.serving.refusal import CLIENT_GONE, REFUSED

MAX_WAITING = 10_000
"""The largest number of waiting lines; further lines are dropped and counted."""
MAX_LETTERS = 1000
"""The largest number of characters of each text that a client chooses: a head may have 16 kB."""
END_SECONDS = 5.0
"""How long `close` waits for the last lines."""


@dataclass(frozen=True)
class Access:
    """A request and its answer. A missing text is None; all texts are None if no request could be read.

    Attributes:
        time: the time of the request, in seconds since 1970.
        client: the client's address, or the one that a trusted proxy gives.
        method, path, query, protocol: the parts of the request, as it was sent.
        status: the answer's status.
        bytes: the size of the answer's body.
        seconds: the time from the request's head to the end of the answer.
        referrer, user_agent: the request's headers.
    """

    time: float
    client: str
    method: str | None
    path: str | None
    query: str | None
    protocol: str | None
    status: int
    bytes: int
    seconds: float | None
    referrer: str | None
    user_agent: str | None


def combined(access: Access) -> str:
    """Apache's and nginx's combined format, followed by the seconds. Text that could look like a field is escaped."""
    target = "-"
    if access.path is not None:
        query = "" if access.query is None else f"?{access.query}"
        target = f"{access.method} {access.path}{query} {access.protocol}"
    request, referrer, agent = (
        "-" if text is None else _escaped(text) for text in (target, access.referrer, access.user_agent)
    )
    client = _escaped(access.client).replace(" ", r"\x20")
    when = datetime.fromtimestamp(access.time).astimezone().strftime("%d/%b/%Y:%H:%M:%S %z")
    seconds = "-" if access.seconds is None else f"{access.seconds:.3f}"
    return f'{client} - - [{when}] "{request}" {access.status} {access.bytes} "{referrer}" "{agent}" {seconds}'


def json_line(access: Access) -> str:
    """Returns a JSON object with the attributes of `Access`, in ASCII, with the time in ISO 8601."""
    when = datetime.fromtimestamp(access.time).astimezone().isoformat(timespec="milliseconds")
    seconds = None if access.seconds is None else round(access.seconds, 6)
    return json.dumps(asdict(access) | {"time": when, "seconds": seconds})


LINES = {"combined": combined, "json": json_line}
"""The functions that make a line, by format."""


def _escaped(text: str) -> str:
    """Escapes a text as nginx does: quotation marks, backslashes, and all but printable ASCII."""
    return "".join(
        letter if " " <= letter <= "~" and letter not in '"\\' else f"\\x{ord(letter):02X}" for letter in text
    )


class AccessLog:
    """Takes lines without waiting, and writes them to a file or to standard output.

    If the file was renamed or removed, the next line opens a new one: rotate it by renaming. Lines are appended, so you
    can also truncate it.

    Args:
        path: the file's path, or `"-"` for standard output.
        format: a key of `LINES`.
        on_lost: called for each line that is lost, because too many wait or the file cannot be written.

    Raises:
        ValueError: the file cannot be written.
    """

    def __init__(self, path: str, format: str, on_lost: Callable[[], None]):
        try:
            self._handler = _Standard(sys.stdout) if path == "-" else _File(path, encoding="ascii")
        except OSError as error:
            raise ValueError(f"access_log={path!r} cannot be written: {error.strerror}") from None
        self._path, self._line, self._on_lost = path, LINES[format], on_lost
        self._waiting: queue.Queue[Access | None] = queue.Queue(MAX_WAITING)
        self._thread = threading.Thread(target=self._write_all, name="access log", daemon=True)
        self._thread.start()

    def put(self, access: Access) -> None:
        try:
            self._waiting.put_nowait(access)
        except queue.Full:
            self._on_lost()

    def put_refused(self, client: str, status: int, bytes: int) -> None:
        """Logs a connection whose request was not read."""
        self.put(Access(time.time(), client, None, None, None, None, status, bytes, None, None, None))

    def close(self) -> None:
        """Waits for the last lines, but not for ever: a reader of standard output may have stopped."""
        with contextlib.suppress(queue.Full):
            self._waiting.put(None, timeout=END_SECONDS)
            self._thread.join(END_SECONDS)

    def _write_all(self) -> None:
        told = False
        while (access := self._waiting.get()) is not None:
            try:
                self._handler.emit(stdlib_logging.makeLogRecord({"msg": self._line(access)}))
                told = False
            except (OSError, ValueError) as error:  # ValueError: standard output was closed
                self._on_lost()
                if not told:
                    logging.error("the access log %s cannot be written: %s", shown(self._path), error)
                told = True
        if self._path != "-":
            self._handler.close()


class _Raising(stdlib_logging.Handler):
    """Raises errors of a handler. `logging` itself would print a traceback for every line."""

    def handleError(self, record):
        raise


class _Standard(_Raising, stdlib_logging.StreamHandler):
    pass


class _File(_Raising, WatchedFileHandler):
    pass


class LoggingMiddleware:
    """Wraps an application, and logs each request when it is answered."""

    def __init__(self, app: ASGIApp, log: AccessLog):
        self.app, self.log = app, log

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        when, start = time.time(), time.perf_counter()
        answer = (CLIENT_GONE, 0)

        async def noted(message: Message) -> None:
            nonlocal answer
            status, size = answer
            if message["type"] == "http.response.start":
                answer = (message["status"], size)
            elif scope["method"] != "HEAD":
                answer = (status, size + len(message.get("body", b"")))
            await send(message)

        try:
            await self.app(scope, receive, noted)
        finally:
            status, size = scope.get(REFUSED, answer)
            self.log.put(_access(scope, when, status, size, time.perf_counter() - start))


def _access(scope: Scope, when: float, status: int, size: int, seconds: float) -> Access:
    headers = dict(scope["headers"])

    def text(value: bytes | None) -> str | None:
        return value.decode("latin-1")[:MAX_LETTERS] if value else None

    return Access(
        time=when,
        client=(scope["client"] or ("-",))[0][:MAX_LETTERS],
        method=scope["method"][:MAX_LETTERS],
        path=text(scope["raw_path"]),
        query=text(scope["query_string"]),
        protocol=f"HTTP/{scope['http_version']}",
        status=status,
        bytes=size,
        seconds=seconds,
        referrer=text(headers.get(b"referer")),
        user_agent=text(headers.get(b"user-agent")),
    )
