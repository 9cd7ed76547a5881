"""Stops a training whose loss is not finite any more."""

import math

import keras


class DivergenceError(ValueError):
    """Raised when the loss of a training is not finite: further steps would be useless."""


class StopOnDivergence(keras.callbacks.Callback):
    """Raises a `DivergenceError` after the first step whose loss is not finite, before anything of it is saved.

    All workers of a distributed model see the same loss and stop at the same step. Reading the loss waits for every
    step of an accelerator, as Keras's progress bar does.
    """

    def __init__(self):
        super().__init__()
        self._epoch = 0

    def on_epoch_begin(self, epoch, logs=None):
        self._epoch = epoch

    def on_train_batch_end(self, batch, logs=None):
        # The loss in the logs is the epoch's mean so far: not finite from the first such step on.
        loss = float((logs or {}).get("loss", 0.0))
        if not math.isfinite(loss):
            raise DivergenceError(f"the loss is {loss} in epoch {self._epoch + 1}, step {batch + 1}")
