"""Passes on the output of a worker: line by line to this process's output, and completely to a file."""

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
"""A longer line is shown as several lines."""
TAIL_BYTES = 4096
"""The number of last written bytes that are kept."""
PIPE_BYTES = 1 << 20
"""The largest number of bytes that can wait in a pipe."""
IDLE_SECONDS = 0.1


class Target:
    """A file for the output of several workers: lines stay whole. If it is closed, nothing is written.

    Args:
        descriptor: the file's descriptor.
    """

    def __init__(self, descriptor: int):
        self._descriptor: int | None = descriptor
        self._lock = threading.Lock()

    def write(self, data: bytes) -> None:
        """Writes all data, however long that takes."""
        with self._lock:
            if data and self._descriptor is not None:
                try:
                    _write_all(self._descriptor, data)
                except OSError:  # the reader is gone: `| head`, a closed terminal
                    self._descriptor = None


class WorkerOutput:
    """Reads the output of a worker in a thread, so that the worker never waits for a reader.

    Reading continues if the target is closed, or the log's disk is full.

    Args:
        sources: the worker's pipes, each with its target.
        prefix: the prefix of every line. Of an overwritten line (progress bars), the last version is shown. With an
            empty prefix, all output is passed on unchanged.
        log: a file to which all output is appended unchanged.

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
        """Call this when the worker has exited: written output is still read, but no more is waited for.

        Its pipes may still be open, in a process that it left behind.
        """
        self._ended.set()

    def is_read(self, timeout: float) -> bool:
        """Waits at most `timeout` seconds, and returns whether all output is read and written."""
        self._thread.join(timeout)
        return not self._thread.is_alive()

    @property
    def last_line(self) -> str:
        """Returns the last line that is not empty, of the last source that has one; "" if there is no output."""
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
                ended = self._ended.is_set()  # read first: all output written before can be read now
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
                logging.warning("%s: %s; later output is not logged", self._log.name, error.strerror)
                self._log = None


class _Stream:
    """A pipe and its unfinished line."""

    def __init__(self, source: IO[bytes], target: Target, prefix: bytes):
        self.source, self.target = source, target
        self.tail = b""
        self._prefix = prefix
        self._rest = b""

    def lines(self, data: bytes) -> bytes:
        """Returns the part of the received data that can be shown: complete lines."""
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
        """Returns the unfinished line if it can be shown at once: it has no prefix."""
        data, self._rest = (b"", self._rest) if self._prefix else (self._rest, b"")
        return data

    def rest(self) -> bytes:
        """Returns the unfinished line with a line break, at the end of the output."""
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
        except BlockingIOError:  # another program has set the terminal to non-blocking
            select.select([], [descriptor], [])
