"""How trainings of tests end before their time."""

import os
import signal

import keras


class KilledError(RuntimeError):
    pass


class At(keras.callbacks.Callback):
    """Does something before a step of the process, counted over all epochs, or of its validations."""

    def __init__(self, step, action, during="train"):
        super().__init__()
        self.left, self.action, self.during = step, action, during

    def _count(self, during):
        if during == self.during:
            self.left -= 1
            if self.left < 0:
                self.left = 1e9
                self.action()

    def on_train_batch_begin(self, batch, logs=None):
        self._count("train")

    def on_test_batch_begin(self, batch, logs=None):
        self._count("test")


def kill():
    raise KilledError


def terminate():
    os.kill(os.getpid(), signal.SIGTERM)
