"""Whether all workers see one folder, before they compute for hours and one of them looks for what the chief saved."""

import contextlib
import hashlib
import os
import secrets
import time
from pathlib import Path

import tensorflow as tf

from polynet_keras.cluster.agreement import fail_together, sum_over_workers
from polynet_keras.cluster.patience import half_a_wait
from polynet_keras.cluster.workers import is_chief, worker_count

APPEAR_SECONDS = 60
"""For a network file system to show on one machine what another one wrote."""
LOOK_AGAIN_SECONDS = 0.5


def check_shared_folder(
    folder: str | os.PathLike, strategy: tf.distribute.Strategy | None, what: str = "run folder"
) -> None:
    """Returns if a file that the chief makes in the folder appears there on every worker; all of them call this.

    Paths are not compared: machines may have mounted one file system at different places. Where the chief cannot write,
    a file or folder that is there already takes the place of the new one: all that a run needs may be complete.

    Args:
        folder: on this worker.
        strategy: of the workers.
        what: the folder is, for the message.

    Raises:
        ValueError: on every worker, if one of them does not see it, or the chief can neither write nor find a file.
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
        number = sum_over_workers(strategy, _number_of(name) if chief else 0)  # now it is there
        seconds = half_a_wait(strategy, APPEAR_SECONDS)
        if not _appears(Path(folder), number, seconds):
            failure = ValueError(
                f"the chief's {what} is not {os.fspath(folder)!r} here: a file that it has there did not appear "
                f"within {seconds:g} s. Give all workers one folder, on storage that they share"
            )
        fail_together(strategy, failure)
    finally:
        if chief:
            with contextlib.suppress(OSError):
                mark.unlink()


def _made_or_found(mark: Path) -> str:
    """The name of a file that is made, or, where it cannot be, of what is in its folder.

    Raises:
        OSError: it cannot be made, and the folder is empty.
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
    """A name as workers can tell it to each other: as an integer of 62 bits."""
    return int.from_bytes(hashlib.sha256(os.fsencode(name)).digest()[:8]) >> 2


def _appears(folder: Path, number: int, seconds: float) -> bool:
    """Whether a file appears whose name has this number."""
    deadline = time.monotonic() + seconds
    while True:
        with contextlib.suppress(OSError):
            if number in map(_number_of, os.listdir(folder)):
                return True
        if time.monotonic() > deadline:
            return False
        look_again(folder)


def look_again(folder: Path) -> None:
    """Waits a moment, and lists a folder, which makes network file systems ask for what is new in it."""
    time.sleep(LOOK_AGAIN_SECONDS)
    with contextlib.suppress(OSError):
        os.listdir(folder)
