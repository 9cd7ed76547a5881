"""Uvicorn's connections, with limits on their number and on the slowness of their clients.

Uvicorn waits for ever for the head of a request, reads refused bodies for ever, waits for ever for a client to take its
answer, and answers invalid HTTP without a reason. Uvicorn and h11 take some 30 microseconds for each chunk of a body
and 5 for each header, on the one thread that answers all clients: a client that sends chunks of one byte, or heads with
nothing but headers, could keep this thread to itself.
"""

import asyncio
import json
import sys
from collections import Counter
from collections.abc import Callable
from typing import Any, cast

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from polynet_keras.deployment.serving.refusal import REFUSED
from polynet_keras.deployment.serving.settings import ServingSettings

MAX_HEAD_BYTES = 16_384
MAX_HEADERS = 100
FREE_PIECES, PIECE_BYTES = 256, 512
"""A body may have `FREE_PIECES` chunks of any size, and one more for each `PIECE_BYTES` bytes."""
DISCARD_SECONDS = 5.0
"""How long the rest of a refused body is read: a client that is still sending would not see the answer."""

PHRASES = {
    400: "Bad Request",
    408: "Request Timeout",
    413: "Content Too Large",
    431: "Request Header Fields Too Large",
    503: "Service Unavailable",
}


def limited_protocol(
    settings: ServingSettings, count: Callable[[int, str], None], log: Callable[[str, int, int], None]
) -> type[asyncio.Protocol]:
    """Returns the class of connections for uvicorn.

    Args:
        settings: has the number of connections, the time for a head and the time to take an answer.
        count: called with the status and the kind of reason of each answer that the application does not see.
        log: called with the client, the status and the bytes of an answer to a request that the application does not
            see.
    """

    class LimitedProtocol(H11Protocol):
        _timer: asyncio.TimerHandle | None = None
        _timed: str | None = None
        _untaken: asyncio.TimerHandle | None = None

        def __init__(self, *arguments, **options):
            super().__init__(*arguments, **options)
            self.since, self.host = self.loop.time(), ""
            self._pieces = self._bytes = 0
            next_event = self.conn.next_event

            def limited():
                """Returns h11's events. Costly chunks and headers raise h11's protocol error, which uvicorn handles."""
                if self.conn.their_state is h11.IDLE:
                    self._pieces = self._bytes = 0
                    _check_headers(self.conn.trailing_data[0][:MAX_HEAD_BYTES])
                event = next_event()
                if type(event) is h11.Data:  # a chunk of the body, or the part of it that came at once
                    self._pieces += 1
                    self._bytes += len(event.data)
                    if self._pieces > FREE_PIECES + self._bytes // PIECE_BYTES:
                        raise h11.RemoteProtocolError("the chunks of the body are too small; send larger ones", 413)
                return event

            self.conn.next_event = limited  # type: ignore[method-assign]

        def connection_made(self, transport):
            super().connection_made(transport)
            self.host = self.client[0] if self.client else ""
            # Writing is paused while any data wait to be written, also at the end of an answer and on a connection that
            # is being closed.
            transport.set_write_buffer_limits(high=0)
            if len(self.connections) > settings.max_connections:
                self._make_room()
            if not transport.is_closing():
                self._watch()

        def _make_room(self):
            """Ends the oldest connection that waits for its client, from the client with most connections.

            A client that sends nothing or reads nothing thus cannot keep others out. If all connections wait for the
            model, this one is refused.
            """
            mine = (one for one in self.connections if isinstance(one, LimitedProtocol))
            others = [one for one in mine if (one.is_receiving or one._untaken) and one is not self]
            counts = Counter(one.host for one in others)
            victim = max(others, key=lambda one: (counts[one.host], -one.since), default=self)
            if victim._untaken:
                victim.transport.abort()  # it would not read a refusal either
            elif victim.conn.their_state is h11.IDLE and victim.cycle and not victim.conn.trailing_data[0]:
                victim.transport.close()  # between two requests: a refusal would look like the next answer
            else:
                victim._refuse(503, f"more than {settings.max_connections} connections", "connections")

        @property
        def is_receiving(self):
            """Whether the connection waits for a request, or for more of one."""
            if self.transport.is_closing():
                return False
            return self.cycle is None or self.cycle.response_complete or self.conn.their_state is h11.SEND_BODY

        def data_received(self, data):
            if not self.transport.is_closing():
                super().data_received(data)
                self._watch()

        def connection_lost(self, exc):
            self._stop()
            self.resume_writing()
            super().connection_lost(exc)

        def pause_writing(self):
            super().pause_writing()
            # Do not close it: that would wait until the client takes the rest.
            self._untaken = self.loop.call_later(settings.body_timeout, self.transport.abort)

        def resume_writing(self):
            super().resume_writing()
            if self._untaken:
                self._untaken.cancel()
                self._untaken = None

        def on_response_complete(self):
            super().on_response_complete()
            self._watch()

        def shutdown(self):
            if not self.transport.is_closing():  # a refused connection has no state that uvicorn could end
                super().shutdown()

        def send_400_response(self, msg):
            """Answers an invalid request. Uvicorn calls it while it handles h11's error, which has the reason."""
            error = sys.exception()
            status = getattr(error, "error_status_hint", 400)
            self._refuse(status if status in PHRASES else 400, f"no valid HTTP request: {error or msg}", "http")

        def _watch(self):
            """Starts or stops the timer for a head that has not arrived, or for a body that is no longer read."""
            if self.transport.is_closing() or self.conn.their_state is h11.ERROR:
                return self._stop()
            state = self.conn.their_state
            # Between two requests uvicorn closes a silent connection without an answer, which would look like the next.
            awaited = state is h11.IDLE and (self.cycle is None or self.conn.trailing_data[0])
            unread = state is h11.SEND_BODY and self.conn.our_state in (h11.DONE, h11.MUST_CLOSE)
            kind = "head" if awaited else "unread" if unread else None
            if kind != self._timed:
                self._stop()
                self._timed = kind
                if kind:
                    seconds = settings.header_timeout if kind == "head" else DISCARD_SECONDS
                    expire = self._slow_head if kind == "head" else self.transport.close
                    self._timer = self.loop.call_later(seconds, expire)

        def _stop(self):
            self._timed = None
            if self._timer:
                self._timer.cancel()
                self._timer = None

        def _slow_head(self):
            if not self.transport.is_closing():
                self._refuse(408, f"the head did not arrive within {settings.header_timeout:g} s", "slow head")

        def _refuse(self, status: int, reason: str, kind: str):
            count(status, kind)
            self._unset_keepalive_if_required()
            answering = self.cycle is not None and not self.cycle.response_complete
            if answering:
                # An application that still waits for the body learns that no more will come.
                self.cycle.disconnected = True
                self.cycle.message_event.set()
            if not answering or not self.cycle.response_started:
                body = json.dumps({"error": reason}).encode()
                retry = "Retry-After: 1\r\n" if status == 503 else ""
                head = (
                    f"HTTP/1.1 {status} {PHRASES[status]}\r\nContent-Type: application/json\r\n{retry}"
                    f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
                )
                self.transport.write(head.encode() + body)
                if answering:
                    cast(dict[str, Any], self.cycle.scope)[REFUSED] = (status, len(body))
                else:
                    log(self.host, status, len(body))
            self.transport.close()

    return LimitedProtocol


def _check_headers(head: bytes) -> None:
    if head.count(b"\n", 0, head.find(b"\r\n\r\n")) > MAX_HEADERS:
        raise h11.RemoteProtocolError(f"more than {MAX_HEADERS} headers", 431)
