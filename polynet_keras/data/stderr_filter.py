"""Standard error without the lines in which image decoders warn of damaged images.

TensorFlow's libjpeg, and the libtiff in Pillow, write such a line for each damaged image that they decode all the same.
It names no file, and comes again in each epoch. `decoder_warnings.log_damaged` names the files.

The lines are left out by a process of its own, which runs this file: so the last words of a process that crashes are
passed on too. It writes a byte to its standard output when it has left a line out.
"""

import contextlib
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
    rb"|Warning: unknown JFIF revision number |Unknown Adobe color transform code |tempfile\.tif: )[^\n]*\n?"
)
READ_BYTES = 1 << 16

_filter: subprocess.Popen | None = None


@contextlib.contextmanager
def held_back() -> Iterator[None]:
    """Leaves the warnings out of what this process writes. For commands: a library's caller may want standard error.

    Where standard error is closed, or no process can be started, all is as without.
    """
    global _filter
    with contextlib.ExitStack() as stack:
        try:
            original = os.dup(2)
            stack.callback(os.close, original)
            _filter = _filtered(original)
        except OSError:
            yield
            return
        try:
            yield
        finally:
            ended, _filter = _filter, None
            with contextlib.suppress(OSError):
                sys.stderr.flush()
            os.dup2(original, 2)
            with contextlib.suppress(subprocess.TimeoutExpired):  # a process that we started may live on and write
                ended.wait(2)
            assert ended.stdout is not None
            ended.stdout.close()


def has_held_back() -> bool:
    """Whether a warning was left out since `held_back` began."""
    if _filter is None or _filter.stdout is None:
        return False
    return bool(select.select([_filter.stdout], [], [], 0)[0])


def _filtered(original: int) -> subprocess.Popen:
    """Sends this process's standard error through a filter, to `original`."""
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
    end = data.rfind(b"\n") + 1
    kept, warnings = WARNING.subn(b"", data[:end])
    rest = data[end:]
    if warnings:
        with contextlib.suppress(OSError):  # nobody has read the bytes before: one is enough
            os.write(1, b".")
    # A progress bar ends without a line feed, and does not wait for one.
    if len(rest) < READ_BYTES and (is_cut or WARNING.search(rest)):
        _write(kept)
        return rest
    _write(kept + rest)
    return b""


def _write(data: bytes) -> None:
    while data:
        try:
            data = data[os.write(2, data) :]
        except OSError:  # nobody reads it, which must not stop the process that writes
            return


if __name__ == "__main__":
    main()
