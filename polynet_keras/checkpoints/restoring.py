"""Chooses the checkpoint to resume from: the same one on all workers, or none of them resumes."""

import keras

from polynet_keras.basics.names import number_of
from polynet_keras.checkpoints.files import CheckpointFiles, SavedState
from polynet_keras.checkpoints.position import Progress
from polynet_keras.cluster.agreement import fail_together, sum_over_workers
from polynet_keras.cluster.patience import half_a_wait
from polynet_keras.cluster.workers import Strategy, is_chief

WAIT_SECONDS = 120
"""The time a worker waits for files that the chief has read: network file systems may show them a minute later."""


def choose(files: CheckpointFiles, fingerprint: str, strategy: Strategy | None) -> SavedState | None:
    """Returns, on every worker, the newest checkpoint that the chief can read; all workers call this at once.

    Args:
        files: the checkpoints, in a folder that all workers share.
        fingerprint: fingerprint of the training; a checkpoint of another one is an error.
        strategy: the strategy of the workers that choose together; None for a single process.

    Returns:
        The checkpoint, or None if there is none.

    Raises:
        ValueError: on all workers: there are checkpoints but none can be read, or the newest one is of another
            training or of another backend.
    """
    chief = is_chief(strategy)
    saved, failure = None, None
    if chief:
        try:
            saved = _checked(files.newest(), fingerprint)
        except ValueError as error:
            failure = error
    number = -1 if failure else saved.number if saved else 0
    number = sum_over_workers(strategy, number if chief else 0)
    if number < 0:
        raise failure or ValueError(
            f"the chief cannot resume from the checkpoints in {files.folder}; its message says why"
        )
    if not chief and number:
        try:
            saved = _checked(files.wait_for(number, half_a_wait(strategy, WAIT_SECONDS)), fingerprint)
        except ValueError as error:
            failure = error
    fail_together(strategy, failure)
    return saved


def check_steps(saved: SavedState, progress: Progress, steps: int | None, steps_per_execution: int) -> None:
    """Raises `ValueError` if `fit`, with this number of steps an epoch, does not stop at a checkpoint's position."""
    if steps and progress.steps_per_epoch and steps != progress.steps_per_epoch:
        raise ValueError(
            f"{saved.path} is from a training with {number_of(progress.steps_per_epoch, 'step')} an epoch, but this "
            f"one has {steps}: use the "
            "same data, batch size and steps_per_epoch, or name another folder to start anew"
        )
    if progress.position.step % steps_per_execution:
        raise ValueError(
            f"{saved.path} is at step {progress.position.step} of an epoch, where steps_per_execution="
            f"{steps_per_execution} does not stop: compile the model with {progress.steps_per_execution}, as before"
        )


def _checked(saved: SavedState | None, fingerprint: str) -> SavedState | None:
    if saved is None:
        return None
    backend = saved.facts.get("backend", "tensorflow")  # older versions wrote on TensorFlow only
    if backend != keras.backend.backend():
        raise ValueError(
            f"{saved.path} was written on Keras's {backend} backend, and this is {keras.backend.backend()}, which "
            f"draws other numbers: resume with KERAS_BACKEND={backend}, or name another folder to start anew"
        )
    found = saved.facts["fingerprint"]
    if found != fingerprint:
        raise ValueError(
            f"{saved.path} was written by a training with fingerprint {found!r}, but this one has "
            f"{fingerprint!r}: name another folder to start anew"
        )
    return saved
