"""Standard output and error whose reader has gone, as that of `polynet summary | head -1`."""

import contextlib
import os
import select
import sys
from collections.abc import Iterator
from typing import Any, TextIO


class _Named:
    """Standard output whose errors say that they are its own: a full disk's has no name of a file."""

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
    """Within it, an error of standard output names it."""
    stream: Any = None if sys.stdout is None else _Named(sys.stdout)
    with contextlib.redirect_stdout(stream):
        yield


def has_no_reader() -> bool:
    """Whether nobody reads standard output or error any more."""
    return any(_is_unread(stream) for stream in (sys.stdout, sys.stderr))


def leave_unread() -> None:
    """Lets Python end without a word about what it could not write."""
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
    """The descriptor of a stream; `None` for a test's or a notebook's."""
    try:
        return None if stream is None else stream.fileno()
    except (OSError, ValueError, AttributeError):
        return None
