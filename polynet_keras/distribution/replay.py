"""The steps of `fit`, so that it can go on in the middle of an epoch.

Keras's `fit` starts at the beginning of an epoch. The steps that were done before are therefore stepped through again,
without computing anything: Keras counts and shows them, and every callback sees them, with the logs of the last one.
"""

import keras
import tensorflow as tf
from absl import logging

from polynet_keras.distribution.position import Progress


class TrainingSteps:
    """Stands in for a model's `train_function`: counts the batches that are read, and replays steps on demand.

    Args:
        model: compiled, while `fit` runs.
        steps_per_epoch: that `fit` was given; without it Keras iterates anew over the data in every epoch.
    """

    def __init__(self, model: keras.Model, steps_per_epoch: int | None):
        self.data_spec = None
        self._model = model
        self._endless = steps_per_epoch is not None
        self._function = None
        self._iterator = None
        self._batches_read = 0
        self._carries_on: bool | None = None
        self._epochs_begun = 0
        self._at_begin = False
        self._passed_epochs = False
        self._replayed: Progress | None = None
        self._skip_data = False

    @property
    def replays(self) -> bool:
        """Whether steps are replayed."""
        return self._replayed is not None

    def replay(self, progress: Progress, skip_data: bool) -> None:
        """Takes the next steps for done, until `resume`.

        Args:
            progress: what was done.
            skip_data: whether to read the batches of what was done, and drop them. Otherwise the data begin after them.
        """
        self._replayed, self._skip_data = progress, skip_data

    def resume(self) -> None:
        """Trains from the next step on."""
        self._replayed = None

    def attach(self) -> None:
        """Puts itself in the place of the model's step, which may have been made anew since."""
        if self._model.train_function is not self:
            self._function = self._model.train_function
            self._model.train_function = self

    def detach(self) -> None:
        """Puts the model's own step back."""
        if self._model.train_function is self:
            self._model.train_function = self._function
        self._iterator = None

    def begin_epoch(self) -> None:
        """To be called at the beginning of each epoch."""
        self._at_begin = True
        self._epochs_begun += 1

    def batches_read(self, epoch_is_over: bool) -> int:
        """Batches that were read by the iterator that the next step will read from."""
        if epoch_is_over and not (self._endless and self._carries_on is not False):
            return 0
        return self._batches_read

    def __call__(self, iterator):
        first = self._at_begin
        self._at_begin = False
        if self._iterator is None or self._iterator is not iterator:
            self._carries_on = False if self._iterator is not None else self._carries_on
            self._iterator, self._batches_read, self._passed_epochs = iterator, 0, False
            self.data_spec = iterator.element_spec
            if self._replayed is not None and self._endless:
                self._pass_over_epochs(self._replayed)
        elif first and self._epochs_begun > 1:
            self._carries_on = True
        steps = self._model.steps_per_execution
        if self._replayed is not None:
            self._read(steps, at_least=1)
            return dict(self._replayed.logs)
        try:
            logs = self._function(iterator)
        except (StopIteration, tf.errors.OutOfRangeError):
            if first and self._passed_epochs:
                raise ValueError(
                    f"the dataset ended after {self._batches_read} batches, between two epochs. To go on from a checkpoint "
                    "with steps_per_epoch, it must be endless: call .repeat() on it, or leave steps_per_epoch out"
                ) from None
            raise
        self._batches_read += steps
        return logs

    def _pass_over_epochs(self, progress: Progress) -> None:
        """The batches of the epochs before, where all epochs share one iterator."""
        before = progress.batches_read - progress.position.step
        if self._skip_data and before > 0:
            logging.info("passing over %d batches of the epochs that are done", before)
        self._read(before, at_least=before)
        self._passed_epochs = before > 0

    def _read(self, batches: int, at_least: int) -> None:
        """Reads batches and drops them, if the data begin before them."""
        for number in range(batches if self._skip_data else 0):
            try:
                next(self._iterator)
            except (StopIteration, tf.errors.OutOfRangeError):
                if number < at_least:
                    raise ValueError(
                        f"the dataset ended after {self._batches_read + number} batches, before the place that the "
                        "checkpoint is of: it is not the one that the checkpoint was trained on"
                    ) from None
                break
        self._batches_read += batches
