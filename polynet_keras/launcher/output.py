"""What a worker writes: line by line on to where this process writes, and whole into a file."""

import contextlib
import os
import re
import select
import selectors
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import IO

from absl import logging

READ_BYTES = 1 << 16
MAX_LINE = 1 << 16
"""What is longer is shown as several lines."""
TAIL_BYTES = 4096
"""Remembered of what was written last."""
PIPE_BYTES = 1 << 20
"""At most so much can wait in a pipe."""
IDLE_SECONDS = 0.1


class Target:
    """Where this process writes what several workers write: lines stay whole. When it is closed, nothing is written.

    Args:
        descriptor: of the file.
    """

    def __init__(self, descriptor: int):
        self._descriptor: int | None = descriptor
        self._lock = threading.Lock()

    def write(self, data: bytes) -> None:
        """Writes all of it, however long that takes."""
        with self._lock:
            if data and self._descriptor is not None:
                try:
                    _write_all(self._descriptor, data)
                except OSError:  # nobody reads any more: `| head`, a closed terminal
                    self._descriptor = None


class WorkerOutput:
    """Reads the output of a worker in a thread: no worker ever waits because nobody reads.

    Where what is written to is closed, or the log's disk is full, reading goes on.

    Args:
        sources: pipes of the worker, and where each goes on to.
        prefix: of every line; of a line that was written over (progress bars) what was there last is shown. With an
            empty prefix all goes on as it comes.
        log: a file that all is appended to, as it comes.

    Raises:
        OSError: the log cannot be opened.
    """

    def __init__(self, sources: Sequence[tuple[IO[bytes], Target]], prefix: bytes, log: Path | None):
        self._streams = [_Stream(source, target, prefix) for source, target in sources]
        self._log = None if log is None else open(log, "ab", buffering=0)  # noqa: SIM115
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> None:
        """Begins to read."""
        self._thread.start()

    def end(self) -> None:
        """Says that the worker has ended: what it wrote is still read, and nothing more is waited for.

        Its pipes may be open nevertheless, in a process that it left behind.
        """
        self._ended.set()

    def is_read(self, timeout: float) -> bool:
        """Waits so many seconds at most, and returns whether all is read and written."""
        self._thread.join(timeout)
        return not self._thread.is_alive()

    @property
    def last_line(self) -> str:
        """The last line that is not empty, of the last source that has one; "" if nobody wrote anything."""
        for stream in reversed(self._streams):
            lines = [line.strip() for line in re.split(rb"[\r\n]+", stream.tail)]
            if any(lines):
                return [line for line in lines if line][-1].decode(errors="replace")
        return ""

    def _run(self) -> None:
        with selectors.DefaultSelector() as selector, contextlib.ExitStack() as files:
            for stream in self._streams:
                selector.register(files.enter_context(stream.source), selectors.EVENT_READ, stream)
            if self._log is not None:
                files.enter_context(self._log)
            left = PIPE_BYTES * len(self._streams)
            while selector.get_map() and left > 0:
                ended = self._ended.is_set()  # asked first: what it wrote before can be read now
                ready = selector.select(IDLE_SECONDS)
                if ended and not ready:
                    break
                for key, _ in ready:
                    data = os.read(key.fd, READ_BYTES)
                    if not data:
                        selector.unregister(key.fileobj)
                    self._record(data)
                    key.data.target.write(key.data.lines(data))
                    left -= len(data) if ended else 0
                if not ready:
                    for stream in self._streams:
                        stream.target.write(stream.partial())
            for stream in self._streams:
                stream.target.write(stream.rest())

    def _record(self, data: bytes) -> None:
        if self._log is not None:
            try:
                _write_all(self._log.fileno(), data)
            except OSError as error:
                logging.warning("%s: %s; what comes is not logged", self._log.name, error.strerror)
                self._log = None


class _Stream:
    """A pipe and its unfinished line."""

    def __init__(self, source: IO[bytes], target: Target, prefix: bytes):
        self.source, self.target = source, target
        self.tail = b""
        self._prefix = prefix
        self._rest = b""

    def lines(self, data: bytes) -> bytes:
        """What can be shown of what has come by now: lines that are complete."""
        self.tail = (self.tail + data)[-TAIL_BYTES:]
        data = self._rest + data
        end = data.rfind(b"\n") + 1
        if not self._prefix:
            end = max(end, data.rfind(b"\r") + 1)
        if len(data) - end > MAX_LINE:
            end = len(data)
        complete, self._rest = data[:end], data[end:]
        return self._prefixed(complete) if self._prefix else complete

    def partial(self) -> bytes:
        """The unfinished line, if it need not wait: nothing is put before it."""
        data, self._rest = (b"", self._rest) if self._prefix else (self._rest, b"")
        return data

    def rest(self) -> bytes:
        """The unfinished line, as no more will come; ends it."""
        data, self._rest = self._rest, b""
        if self._prefix:
            return self._prefixed(data)
        return data if self.tail.endswith(b"\n") or not self.tail else data + b"\n"

    def _prefixed(self, data: bytes) -> bytes:
        if not data:
            return b""
        lines = data.removesuffix(b"\n").split(b"\n")
        return b"".join(self._prefix + line.rstrip(b"\r").rpartition(b"\r")[2] + b"\n" for line in lines)


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(descriptor, view) :]
        except BlockingIOError:  # a terminal that another program has set so
            select.select([], [descriptor], [])
