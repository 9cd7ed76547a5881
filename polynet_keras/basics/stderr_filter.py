"""Standard error without two kinds of lines: warnings of image decoders, and what TensorFlow says of itself.

TensorFlow's libjpeg, and the libtiff in Pillow, write a line for each damaged image that they decode all the same.
It names no file, and comes again in each epoch. `decoder_warnings.log_damaged` names the files.

TensorFlow greets as it is imported, before `TF_CPP_MIN_LOG_LEVEL` counts: twice of oneDNN and of CUDA, which is not
there. Its errors and warnings stay, but for those of `GREETING`.

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
_LINE = rb"\d{4} [\d:.]+ +\d+ "
GREETING = re.compile(
    rb"(?m)^(?:WARNING: All log messages before absl::InitializeLog\(\) is called are written to STDERR"
    rb"|I" + _LINE + rb"[\w./-]+:\d+\] [^\n]*"  # information
    # An optimization that is left out: nothing is wrong, and nobody can do anything about it.
    rb"|W"
    + _LINE
    + rb"loop_optimizer\.cc:\d+\] Skipping loop optimization for Merge node with control input[^\n]*"
    # An error ends what a process computes: Python raises it.
    + rb"|W"
    + _LINE
    + rb"local_rendezvous\.cc:\d+\] Local rendezvous is aborting with status: [^\n]*(?:\n\t \[\[[^\n]*)*"
    # Of processors without AVX-512: it computes in another way.
    + rb"|E"
    + _LINE
    + rb"util\.cc:\d+\] oneDNN supports DT_[^\n]*"
    # There is no driver, which is an error only where there is a card.
    + (
        b""
        if os.path.exists("/dev/nvidiactl")
        else rb"|E" + _LINE + rb"cuda_platform\.cc:\d+\] [^\n]*cuInit[^\n]*\(303\)"
    )
    + rb")(?:\n|\Z)"
)
DECODERS, TENSORFLOW = "d", "t"
LINES = {DECODERS: WARNING, TENSORFLOW: GREETING}
"""By kind: the lines."""
READ_BYTES = 1 << 16
SWITCH = re.compile(rb"\0polynet: without ([dt]*)\0")
"""Tells the filter which kinds of lines it leaves out from here on."""
MARK = b"\0polynet: said so far\0"
"""The filter answers it when it has passed on all that was written before."""
SECONDS = 2.0
"""To wait for the filter."""
LEFT_OUT, MARKED = b".", b"+"
"""What the filter says on its standard output."""

_filter: subprocess.Popen | None = None
_left_out = ""
"""The kinds of lines that are left out now."""
_is_told = False


@contextlib.contextmanager
def held_back(kind: str = DECODERS) -> Iterator[None]:
    """Leaves lines out of what this process writes. For commands: a library's caller may want descriptor 2.

    Nothing changes where standard error is closed, where no process can be started, and in the first process of a
    container, with which the system ends all others at once.

    Args:
        kind: of the lines. Another kind may be held back already; one process filters both.
    """
    global _is_told
    with contextlib.ExitStack() as stack:
        if kind not in _left_out and (_filter is not None or _started(stack)):
            if kind == DECODERS:
                _is_told = False
            _leave_out(_left_out + kind)
            stack.callback(lambda: _leave_out(_left_out.replace(kind, "")))
        try:
            yield
        except BaseException:
            if kind == DECODERS and warned():  # nobody came to name them
                logging.warning("damaged images: `polynet train` and `polynet evaluate` name them at their end")
            raise


def _started(stack: contextlib.ExitStack) -> bool:
    """Starts the filter, which ends with `stack`; false where there can be none."""
    global _filter
    if os.name != "posix" or os.getpid() == 1 or sys.stderr is None or sys.stderr.closed:
        return False
    with contextlib.ExitStack() as attempt:
        try:
            original = os.dup(2)
            attempt.callback(os.close, original)
            _filter = _filtered(original)
        except OSError:
            return False
        attempt.callback(_end)
        attempt.callback(os.dup2, original, 2)
        attempt.enter_context(_python_writes_to(original))
        stack.push(attempt.pop_all())
    return True


def _leave_out(kinds: str) -> None:
    global _left_out
    _left_out = kinds
    if _filter is not None:
        with contextlib.suppress(OSError):
            os.write(2, f"\0polynet: without {kinds}\0".encode())


def warned() -> bool:
    """Whether a warning was left out, once: who is told so names the damaged images, and need not again."""
    global _is_told
    if _filter is None or _filter.stdout is None or DECODERS not in _left_out or _is_told:
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
    global _filter, _left_out
    ended, _filter = _filter, None
    _left_out = ""
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
    rest, kinds = b"", ""
    while data := os.read(0, READ_BYTES):
        *done, (rest, kinds) = _parts(rest + data, kinds)
        for text, kinds_then in done:
            _pass_on(text, kinds_then)
        rest = _passed_on(rest, kinds, is_cut=len(data) == READ_BYTES)
    _pass_on(rest, kinds)


def _parts(data: bytes, kinds: str) -> list[tuple[bytes, str]]:
    """What was written before, between and after the switches, each with the kinds of lines to leave out of it."""
    texts = SWITCH.split(data)
    return list(zip(texts[::2], [kinds, *(after.decode() for after in texts[1::2])], strict=True))


def _passed_on(data: bytes, kinds: str, is_cut: bool) -> bytes:
    """Writes what is to be read; returns the beginning of a line that may be left out."""
    end = data.rfind(b"\n") + 1
    rest = data[end:]
    # A line without its end is not waited for, unless it is one to leave out or was cut by reading.
    if len(rest) >= READ_BYTES or not (is_cut or any(LINES[kind].search(rest) for kind in kinds)):
        end, rest = len(data), b""
    _pass_on(data[:end], kinds)
    return rest


def _pass_on(text: bytes, kinds: str) -> None:
    """Writes a text without lines of these kinds, then says whether a decoder has warned in it, and of its marks."""
    left, warnings = text.replace(MARK, b""), 0
    for kind in kinds:
        left, count = LINES[kind].subn(b"", left)
        warnings += count * (kind == DECODERS)
    _write(left)
    with contextlib.suppress(OSError):  # nobody has read what it says so often
        os.write(1, LEFT_OUT * (warnings > 0) + MARKED * text.count(MARK))


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
