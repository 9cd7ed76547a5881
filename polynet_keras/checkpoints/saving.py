"""Decides when a checkpoint is due, and handles failures to write one."""

import time
from typing import Any

import tensorflow as tf
from absl import logging

from polynet_keras.basics.tensorflow_errors import plain_message
from polynet_keras.checkpoints.files import CheckpointFiles

State = tuple[dict[str, Any], dict[str, Any]]
"""What a checkpoint holds: facts and tensors."""


class Saver:
    """Writes checkpoints at intervals of steps, of seconds, or both.

    Args:
        files: the checkpoints' files.
        every_steps: the interval in steps, or None.
        every_seconds: the interval in seconds, or None.
    """

    def __init__(self, files: CheckpointFiles, every_steps: int | None, every_seconds: float | None):
        self._files = files
        self._every_steps = every_steps
        self._every_seconds = every_seconds
        self.start(0)

    def start(self, step: int) -> None:
        """Counts steps and seconds from now on; `step` steps are done."""
        self._step, self._time = step, time.monotonic()

    def is_due(self, step: int) -> bool:
        """Whether to write now. `step` is the number of completed steps; it may grow by any number."""
        every, seconds = self._every_steps, self._every_seconds
        if every is not None and step // every > self._step // every:
            return True
        return seconds is not None and time.monotonic() - self._time >= seconds

    def write(self, state: State, step: int) -> bool:
        """Writes a checkpoint. If that fails, warns and returns False."""
        try:
            self._files.write(*state)
        except (OSError, TypeError, ValueError, tf.errors.OpError) as error:
            logging.warning(
                "no checkpoint was written to %s: %s. Training continues, and will try again",
                self._files.folder,
                plain_message(error),
            )
            return False
        finally:
            # On a full disk, it should not try again at every step.
            self.start(step)
        return True
