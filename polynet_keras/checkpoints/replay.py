"""Replays the steps of `fit`, so that it can resume in the middle of an epoch.

Keras's `fit` starts at the beginning of an epoch. The completed steps of the epoch are therefore replayed without
computing anything: Keras counts and shows them, and every callback sees them, with the logs of the last one.
"""

from typing import Any

import keras
import tensorflow as tf

from polynet_keras.basics.names import number_of
from polynet_keras.basics.news import tell
from polynet_keras.checkpoints.data_order import DataOrder
from polynet_keras.checkpoints.position import Progress
from polynet_keras.cluster.workers import is_chief, model_strategy


class TrainingSteps:
    """Replaces a model's `train_function`: counts the batches that are read, and replays steps on demand.

    Keras makes a new iterator over the data in every epoch. With `steps_per_epoch` it keeps one iterator, until the
    data end if it knows their number.

    Args:
        model: a compiled model, while `fit` runs.
        steps_per_epoch: the argument of `fit`, or None.
        epoch_iterator: Keras's iterator over the data of this `fit`.

    Attributes:
        model: the argument.
        order: the order of the data.
        replays: whether steps are replayed.
        data_spec: the specification of a batch, after the first request for one.
    """

    def __init__(self, model: keras.Model, steps_per_epoch: int | None, epoch_iterator):
        self.model = model
        self.order = DataOrder(epoch_iterator)
        self.replays = False
        self.data_spec = None
        self._counts_steps = steps_per_epoch is not None
        self._function: Any = None
        self._iterator: Any = None
        self._batches_read = 0
        self._number = 0
        self._epochs_begun = 0
        self._epoch_begins = False
        self._passed_epochs = False
        self._done: Progress | None = None
        self._skip_data = False

    def go_on(self, done: Progress, skip_data: bool) -> None:
        """Makes the data, and within an epoch the steps, resume from a position.

        At this position the caller sets `replays` to False.

        Args:
            done: the completed part of the training.
            skip_data: whether to read and drop the batches of that part. Otherwise the data begin after them.
        """
        self._done, self._skip_data = done, skip_data
        self.replays = done.position.step > 0
        if skip_data and done.iterators is not None and done.iterators_read is not None and done.seeds is not None:
            self.order.go_on(done.iterators, done.iterators_read, done.position.epoch, done.seeds)

    def attach(self) -> None:
        """Replaces the model's step for one step; the model may have made a new one since.

        Between the steps and after an error, callbacks and other code find the model's own step.
        """
        if self.model.train_function is not self:
            self._function = self.model.train_function
            self.model.train_function = self

    def detach(self) -> None:
        """Restores the model's own step."""
        if self.model.train_function is self:
            self.model.train_function = self._function
        self._iterator = None

    def begin_epoch(self) -> None:
        """Call this at the beginning of each epoch."""
        self._epoch_begins = True
        self._epochs_begun += 1

    def batches_read(self, epoch_is_over: bool = False) -> int:
        """Returns the number of batches read so far by the iterator of the next step."""
        return 0 if epoch_is_over and self._is_used_up() else self._batches_read

    def iterators_before(self, epoch_is_over: bool = False) -> tuple[int, int]:
        """Returns how many iterators were made, and how many read, before the iterator of the next step."""
        if not epoch_is_over:
            return self._number - 1, self.order.read - 1
        return self.order.made - (not self.order.begins_anew), self.order.read - (not self._is_used_up())

    def _is_used_up(self) -> bool:
        """Whether, after an epoch, Keras has left the iterator or is about to."""
        return self.order.begins_anew or self.order.made > self._number

    def __call__(self, *arguments):
        """Runs or replays a step: on TensorFlow (iterator) → logs, on JAX (state, iterator) → (logs, state)."""
        *state, iterator = arguments
        try:
            return self._step(arguments, state, iterator)
        except BaseException:
            if state:  # on JAX Keras itself gives the variables their values only after a step that succeeded
                from polynet_keras.engine.on_jax import give_back

                give_back(self.model, state[0])
            raise

    def _step(self, arguments: tuple, state: list, iterator):
        self.model.train_function = self._function
        if iterator is not self.order.latest:
            return self._function(*arguments)  # another `fit`: an interrupt ended this one before the step
        first, self._epoch_begins = self._epoch_begins, False
        if self._iterator is not iterator:
            self._iterator, self._batches_read, self._passed_epochs = iterator, 0, False
            self._number = self.order.made
            self.order.begin_to_read()
            self.data_spec = getattr(iterator, "element_spec", None)  # on JAX the metrics are made without it
        if self._done is not None and self._epochs_begun == 1 and first and self._counts_steps:
            self._pass_over_epochs(self._done)
        steps = self.model.steps_per_execution
        if self.replays and self._done is not None:
            self._read(steps, at_least=1)
            logs = dict(self._done.logs)
            return (logs, *state) if state else logs
        try:
            results = self._function(*arguments)
        except (StopIteration, tf.errors.OutOfRangeError):
            if first and self._passed_epochs:
                raise ValueError(
                    f"the dataset ended after {number_of(self._batches_read, 'batch', 'batches')}, between two "
                    "epochs: to resume from a "
                    "checkpoint with steps_per_epoch, it must be endless. Call .repeat() on it, or leave "
                    "steps_per_epoch out"
                ) from None
            raise
        self._batches_read += steps
        return results

    def _pass_over_epochs(self, done: Progress) -> None:
        """Skips the batches of the epochs before, if all epochs share one iterator."""
        before = done.batches_read - done.position.step
        if self._skip_data and before > 0 and is_chief(model_strategy(self.model)):
            tell("skipping %s of the completed epochs", number_of(before, "batch", "batches"))
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
                        f"the dataset ended after {number_of(self._batches_read + number, 'batch', 'batches')}, "
                        "before the checkpoint's "
                        "position: it is not the dataset that the checkpoint was trained on"
                    ) from None
                break
        self._batches_read += batches
