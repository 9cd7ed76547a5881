"""Checks that all workers see the same folder before they compute for hours and look for the chief's files in it."""

import contextlib
import hashlib
import os
import secrets
import time
from pathlib import Path

from polynet_keras.cluster.agreement import fail_together, sum_over_workers
from polynet_keras.cluster.patience import half_a_wait
from polynet_keras.cluster.workers import Strategy, is_chief, worker_count

APPEAR_SECONDS = 60
"""The time for a network file system to show on one machine what another one wrote."""
LOOK_AGAIN_SECONDS = 0.5


def check_shared_folder(folder: str | os.PathLike, strategy: Strategy | None, what: str = "run folder") -> None:
    """Returns if a file that the chief makes in the folder appears on every worker. All workers call this.

    Paths are not compared: machines may mount one file system at different places. If the chief cannot write, an
    existing file or folder takes the place of the new one: the run may already be complete.

    Args:
        folder: the folder's path on this worker.
        strategy: the workers' strategy.
        what: the folder's purpose, for the message.

    Raises:
        ValueError: on every worker, if one of them does not see the file, or the chief can neither write nor find one.
    """
    if strategy is None or worker_count(strategy) == 1:
        return
    chief = is_chief(strategy)
    mark = Path(folder, f".seen-by-all-{secrets.token_hex(8)}")
    try:
        name, failure = "", None
        if chief:
            try:
                name = _made_or_found(mark)
            except OSError as error:
                failure = ValueError(f"the {what} {os.fspath(folder)!r} cannot be written: {error.strerror or error}")
        fail_together(strategy, failure)
        number = sum_over_workers(strategy, _number_of(name) if chief else 0)  # now the file exists
        seconds = half_a_wait(strategy, APPEAR_SECONDS)
        if not _appears(Path(folder), number, seconds):
            failure = ValueError(
                f"the chief's {what} is not {os.fspath(folder)!r} here: a file of the chief did not appear "
                f"within {seconds:g} s. Give all workers the same folder, on storage that they share"
            )
        fail_together(strategy, failure)
    finally:
        if chief:
            with contextlib.suppress(OSError):
                mark.unlink()


def _made_or_found(mark: Path) -> str:
    """Returns the name of a new file, or, if it cannot be made, of an existing one in its folder.

    Raises:
        OSError: the file cannot be made, and the folder is empty.
    """
    try:
        mark.touch()
    except OSError:
        others = sorted(os.listdir(mark.parent))
        if not others:
            raise
        return others[0]
    return mark.name


def _number_of(name: str) -> int:
    """Returns a name as a number of 62 bits, which workers can sum."""
    return int.from_bytes(hashlib.sha256(os.fsencode(name)).digest()[:8]) >> 2


def _appears(folder: Path, number: int, seconds: float) -> bool:
    """Whether a file with this number appears."""
    deadline = time.monotonic() + seconds
    while True:
        with contextlib.suppress(OSError):
            if number in map(_number_of, os.listdir(folder)):
                return True
        if time.monotonic() > deadline:
            return False
        look_again(folder)


def look_again(folder: Path) -> None:
    """Waits a moment, and lists a folder: network file systems then look for new files in it."""
    time.sleep(LOOK_AGAIN_SECONDS)
    with contextlib.suppress(OSError):
        os.listdir(folder)
