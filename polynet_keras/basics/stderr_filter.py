"""Filters two kinds of lines out of standard error: warnings of image decoders, and TensorFlow's start-up messages.

TensorFlow's libjpeg, and the libtiff in Pillow, write a line for each damaged image that they can still decode. The
line names no file, and comes again in each epoch. `decoder_warnings.log_damaged` names the files.

TensorFlow logs while it is imported, before `TF_CPP_MIN_LOG_LEVEL` takes effect: twice about oneDNN, and about missing
CUDA. Its other errors and warnings stay; `GREETING` lists the filtered ones.

A process that runs this file filters what C code writes to descriptor 2, so the last lines of a process that crashes
are passed on too. What Python writes to `sys.stderr` is not filtered.
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
    # The warnings of libjpeg (JWRN_* of its jerror.h). libtiff prints the name that Pillow gives it, not the file's.
    rb"(?:Corrupt JPEG data: |Premature end of JPEG file|Invalid SOS parameters for sequential JPEG"
    rb"|Inconsistent progression sequence for component |Invalid progressive parameters "
    rb"|Warning: unknown JFIF revision number |Unknown Adobe color transform code |(?<![\w/\\.-])tempfile\.tif: )"
    rb"[^\n]*\n?"
)
_LINE = rb"\d{4} [\d:.]+ +\d+ "
GREETING = re.compile(
    rb"(?m)^(?:WARNING: All log messages before absl::InitializeLog\(\) is called are written to STDERR"
    rb"|I" + _LINE + rb"[\w./-]+:\d+\] [^\n]*"  # information
    # A skipped optimization: nothing is wrong, and the user cannot change it.
    rb"|W"
    + _LINE
    + rb"loop_optimizer\.cc:\d+\] Skipping loop optimization for Merge node with control input[^\n]*"
    # An error that Python raises too.
    + rb"|W"
    + _LINE
    + rb"local_rendezvous\.cc:\d+\] Local rendezvous is aborting with status: [^\n]*(?:\n\t \[\[[^\n]*)*"
    # Processors without AVX-512 compute in another way.
    + rb"|E"
    + _LINE
    + rb"util\.cc:\d+\] oneDNN supports DT_[^\n]*"
    # A missing driver is an error only on a machine with a card.
    + (
        b""
        if os.path.exists("/dev/nvidiactl")
        else rb"|E" + _LINE + rb"cuda_platform\.cc:\d+\] [^\n]*cuInit[^\n]*\(303\)"
    )
    + rb")(?:\n|\Z)"
)
DECODERS, TENSORFLOW = "d", "t"
LINES = {DECODERS: WARNING, TENSORFLOW: GREETING}
"""The lines of each kind."""
READ_BYTES = 1 << 16
SWITCH = re.compile(rb"\0polynet: without ([dt]*)\0")
"""Tells the filter which kinds of lines to drop from now on."""
MARK = b"\0polynet: said so far\0"
"""The filter answers this mark after it has passed on everything written before it."""
SECONDS = 2.0
"""The longest wait for the filter."""
LEFT_OUT, MARKED = b".", b"+"
"""The answers of the filter on its standard output."""

_filter: subprocess.Popen | None = None
_left_out = ""
"""The kinds of lines that the filter drops now."""
_is_told = False


@contextlib.contextmanager
def held_back(kind: str = DECODERS) -> Iterator[None]:
    """Drops lines that this process writes. Only for commands: the caller of a library may need descriptor 2.

    Nothing changes if standard error is closed, if no process can be started, and in the first process of a container:
    when it ends, the system ends all others at once.

    Args:
        kind: the kind of lines. Another kind may be held back already; one process filters both.
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
            if kind == DECODERS and warned():  # no caller has named them
                logging.warning("damaged images: `polynet train` and `polynet evaluate` name them at their end")
            raise


def _started(stack: contextlib.ExitStack) -> bool:
    """Starts the filter, which ends with `stack`. Returns false if it cannot start."""
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
    """Whether a warning was dropped since the last call. The caller then names the damaged images once."""
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
    """Sends everything written to descriptor 2 through a filter to `original`."""
    readable, writable = os.pipe()
    try:
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", __file__],
            stdin=readable,
            stdout=subprocess.PIPE,
            stderr=original,
            start_new_session=True,  # no Ctrl-C: it ends after the process whose output it filters
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
    with contextlib.suppress(subprocess.TimeoutExpired):  # a process that we started may still run and write
        ended.wait(SECONDS)
    ended.stdout.close()


@contextlib.contextmanager
def _python_writes_to(original: int) -> Iterator[None]:
    """Makes `sys.stderr` and the root logger write to `original`: progress bars need the terminal, if it is one."""
    before = sys.stderr
    before.flush()
    try:
        is_our_own = before.fileno() == 2
    except (OSError, ValueError, AttributeError):  # the stream of a notebook or a test
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
    # A scheduler signals all processes of a job. This one must still pass on the last lines of the others.
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
    """Returns the text before, between and after the switches, each part with the kinds of lines to drop from it."""
    texts = SWITCH.split(data)
    return list(zip(texts[::2], [kinds, *(after.decode() for after in texts[1::2])], strict=True))


def _passed_on(data: bytes, kinds: str, is_cut: bool) -> bytes:
    """Writes what is not filtered; returns the beginning of a line that may have to be dropped."""
    end = data.rfind(b"\n") + 1
    rest = data[end:]
    # An incomplete line is passed on at once, unless it may have to be dropped or was cut by reading.
    if len(rest) >= READ_BYTES or not (is_cut or any(LINES[kind].search(rest) for kind in kinds)):
        end, rest = len(data), b""
    _pass_on(data[:end], kinds)
    return rest


def _pass_on(text: bytes, kinds: str) -> None:
    """Writes a text without lines of these kinds, then reports the decoder warnings and the marks in it."""
    left, warnings = text.replace(MARK, b""), 0
    for kind in kinds:
        left, count = LINES[kind].subn(b"", left)
        warnings += count * (kind == DECODERS)
    _write(left)
    with contextlib.suppress(OSError):  # the pipe is full of unread answers
        os.write(1, LEFT_OUT * (warnings > 0) + MARKED * text.count(MARK))


def _write(data: bytes) -> None:
    while data:
        try:
            data = data[os.write(2, data) :]
        except BlockingIOError:
            select.select([], [2], [])
        except OSError:  # the reader is gone, which must not stop the writing process
            return


if __name__ == "__main__":
    main()
