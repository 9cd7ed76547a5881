"""Whether all workers see one folder, before they compute for hours and one of them looks for what the chief saved."""

import contextlib
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

    Paths are not compared: machines may have mounted one file system at different places.

    Args:
        folder: on this worker.
        strategy: of the workers.
        what: the folder is, for the message.

    Raises:
        ValueError: on every worker, if one of them does not see it.
    """
    if strategy is None or worker_count(strategy) == 1:
        return
    chief = is_chief(strategy)
    number = sum_over_workers(strategy, secrets.randbelow(1 << 62) if chief else 0)
    mark = Path(folder, f".seen-by-all-{number:x}")
    try:
        if chief:
            mark.touch()
        sum_over_workers(strategy, 0)  # now it is there
        failure = None
        seconds = half_a_wait(strategy, APPEAR_SECONDS)
        if not _appears(mark, seconds):
            failure = ValueError(
                f"the chief's {what} is not {os.fspath(folder)!r} here: a file that it made there did not appear "
                f"within {seconds:g} s. Give all workers one folder, on storage that they share"
            )
        fail_together(strategy, failure)
    finally:
        if chief:
            mark.unlink(missing_ok=True)


def _appears(path: Path, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while not path.exists():
        if time.monotonic() > deadline:
            return False
        look_again(path.parent)
    return True


def look_again(folder: Path) -> None:
    """Waits a moment, and lists a folder, which makes network file systems ask for what is new in it."""
    time.sleep(LOOK_AGAIN_SECONDS)
    with contextlib.suppress(OSError):
        os.listdir(folder)
