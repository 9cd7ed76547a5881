"""Standard output and error whose reader is gone, as with `polynet summary | head -1`."""

import contextlib
import os
import select
import sys
from collections.abc import Iterator
from typing import Any, TextIO


class _Named:
    """Standard output that names itself in its errors: the error of a full disk has no file name."""

    def __init__(self, stream: TextIO):
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        with _naming():
            return self._stream.write(text)

    def flush(self) -> None:
        with _naming():
            self._stream.flush()


@contextlib.contextmanager
def _naming() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, error.strerror, "standard output") from None


@contextlib.contextmanager
def output_named() -> Iterator[None]:
    """A context in which an error of standard output names standard output."""
    stream: Any = None if sys.stdout is None else _Named(sys.stdout)
    with contextlib.redirect_stdout(stream):
        yield


def has_no_reader() -> bool:
    """Whether the reader of standard output or error is gone."""
    return any(_is_unread(stream) for stream in (sys.stdout, sys.stderr))


def leave_unread() -> None:
    """Makes Python exit without a message about unwritten output."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        if stream is sys.stdout or _is_unread(stream):
            number = _number(stream)
            if number is not None:
                os.dup2(nowhere, number)
    os.close(nowhere)


def _is_unread(stream: TextIO | None) -> bool:
    number = _number(stream)
    if number is None or not hasattr(select, "poll"):  # Windows
        return False
    poll = select.poll()
    poll.register(number, 0)
    return any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0))


def _number(stream: TextIO | None) -> int | None:
    """Returns the descriptor of a stream; `None` for a stream of a test or a notebook."""
    try:
        return None if stream is None else stream.fileno()
    except (OSError, ValueError, AttributeError):
        return None
