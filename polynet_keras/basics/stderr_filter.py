"""Standard error without the lines in which image decoders warn of damaged images.

TensorFlow's libjpeg, and the libtiff in Pillow, write such a line for each damaged image that they decode all the same.
It names no file, and comes again in each epoch. `decoder_warnings.log_damaged` names the files.

What C code writes to descriptor 2 goes through a process that runs this file: so the last words of a process that
crashes are passed on too. What Python writes to `sys.stderr` goes where it went before.
"""

import contextlib
import io
import logging
import os
import re
import select
import signal
import subprocess
import sys
from collections.abc import Iterator

WARNING = re.compile(
    # What libjpeg warns of (JWRN_* of its jerror.h); libtiff says the name that Pillow gives it, whatever the file's.
    rb"(?:Corrupt JPEG data: |Premature end of JPEG file|Invalid SOS parameters for sequential JPEG"
    rb"|Inconsistent progression sequence for component |Invalid progressive parameters "
    rb"|Warning: unknown JFIF revision number |Unknown Adobe color transform code |(?<![\w/\\.-])tempfile\.tif: )"
    rb"[^\n]*\n?"
)
READ_BYTES = 1 << 16
MARK = b"\0polynet: said so far\0"
"""The filter answers it when it has passed on all that was written before."""
SECONDS = 2.0
"""To wait for the filter."""
LEFT_OUT, MARKED = b".", b"+"
"""What the filter says on its standard output."""

_filter: subprocess.Popen | None = None
_is_told = False


@contextlib.contextmanager
def held_back() -> Iterator[None]:
    """Leaves the warnings out of what this process writes. For commands: a library's caller may want descriptor 2.

    Nothing changes where standard error is closed, where no process can be started, and in the first process of a
    container, with which the system ends all others at once.
    """
    global _filter, _is_told
    if os.name != "posix" or os.getpid() == 1 or sys.stderr is None or sys.stderr.closed:
        yield
        return
    with contextlib.ExitStack() as stack:
        try:
            original = os.dup(2)
            stack.callback(os.close, original)
            _filter, _is_told = _filtered(original), False
        except OSError:
            yield
            return
        stack.callback(_end)
        stack.callback(os.dup2, original, 2)
        stack.enter_context(_python_writes_to(original))
        yield


def warned() -> bool:
    """Whether a warning was left out, once: who is told so names the damaged images, and need not again."""
    global _is_told
    if _filter is None or _filter.stdout is None or _is_told:
        return False
    said = b""
    with contextlib.suppress(OSError):
        os.write(2, MARK)
        while MARKED not in said and select.select([_filter.stdout], [], [], SECONDS)[0]:
            more = os.read(_filter.stdout.fileno(), READ_BYTES)
            if not more:
                break
            said += more
    _is_told = LEFT_OUT in said
    return _is_told


def _filtered(original: int) -> subprocess.Popen:
    """Sends what is written to descriptor 2 through a filter, to `original`."""
    readable, writable = os.pipe()
    try:
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", __file__],
            stdin=readable,
            stdout=subprocess.PIPE,
            stderr=original,
            start_new_session=True,  # without Ctrl-C: it ends after the process whose output it passes on
        )
        os.dup2(writable, 2)
    finally:
        os.close(readable)
        os.close(writable)
    return process


def _end() -> None:
    global _filter
    ended, _filter = _filter, None
    assert ended is not None
    assert ended.stdout is not None
    with contextlib.suppress(subprocess.TimeoutExpired):  # a process that we started may live on and write
        ended.wait(SECONDS)
    ended.stdout.close()


@contextlib.contextmanager
def _python_writes_to(original: int) -> Iterator[None]:
    """Lets `sys.stderr` and the root logger write to `original`, which may be a terminal: progress bars need one."""
    before = sys.stderr
    before.flush()
    try:
        is_our_own = before.fileno() == 2
    except (OSError, ValueError, AttributeError):  # a notebook's, or one of a test
        is_our_own = False
    if not is_our_own:
        yield
        return
    raw = open(original, "wb", buffering=0, closefd=False)  # noqa: SIM115 - it is closed with its text below
    with io.TextIOWrapper(
        raw, encoding=before.encoding, errors=before.errors, line_buffering=True, write_through=True
    ) as text:
        handlers = [
            handler
            for handler in logging.root.handlers
            if isinstance(handler, logging.StreamHandler) and handler.stream is before
        ]
        for handler in handlers:
            handler.setStream(text)
        sys.stderr = text
        try:
            yield
        finally:
            sys.stderr = before
            for handler in handlers:
                handler.setStream(before)


def main() -> None:
    """Filters standard input to standard error."""
    # A scheduler ends all processes of a job: this one has to pass on what the others say to it.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    os.set_blocking(1, False)
    rest = b""
    while data := os.read(0, READ_BYTES):
        rest = _passed_on(rest + data, is_cut=len(data) == READ_BYTES)
    _write(WARNING.sub(b"", rest))


def _passed_on(data: bytes, is_cut: bool) -> bytes:
    """Writes what is no warning; returns the beginning of a line that may be one."""
    marks = data.count(MARK)
    data = data.replace(MARK, b"")
    end = data.rfind(b"\n") + 1
    kept, warnings = WARNING.subn(b"", data[:end])
    rest = data[end:]
    # A line without its end is not waited for, unless it is a warning or was cut by reading.
    if len(rest) >= READ_BYTES or not (is_cut or WARNING.search(rest)):
        kept, rest = kept + rest, b""
    _write(kept)
    with contextlib.suppress(OSError):  # nobody has read what it says so often
        os.write(1, LEFT_OUT * (warnings > 0) + MARKED * marks)
    return rest


def _write(data: bytes) -> None:
    while data:
        try:
            data = data[os.write(2, data) :]
        except BlockingIOError:
            select.select([], [2], [])
        except OSError:  # nobody reads it, which must not stop the process that writes
            return


if __name__ == "__main__":
    main()
