"""The call of `fit` that a callback works in, as the stack shows it: Keras does not tell a callback of it."""

import sys
from dataclasses import dataclass
from types import FrameType
from typing import Any

import keras


@dataclass(frozen=True)
class Fit:
    """The call of `fit` that a callback is called from.

    Attributes:
        callbacks: Keras's container of the callbacks.
        steps_per_epoch: the argument of `fit`.
        epoch_iterator: Keras's, over the training data.
        validation_data: the argument of `fit`.
    """

    callbacks: keras.callbacks.CallbackList
    steps_per_epoch: int | None
    epoch_iterator: Any
    validation_data: Any


def fit_around(callback: keras.callbacks.Callback) -> Fit:
    """The call of `fit` that called a callback.

    Keras tells a callback neither what other callbacks there are, nor whether it was given `steps_per_epoch`, which
    decides whether epochs share one iterator, nor what it iterates over. All are in the frames above.

    Raises:
        RuntimeError: the callback was not called by `fit`.
    """
    callbacks = None
    # Not from this frame itself: it would hold itself, and with it `fit`'s, until the garbage is collected.
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        variables = frame.f_locals
        owner = variables.get("self")
        if callbacks is None:
            if isinstance(owner, keras.callbacks.CallbackList) and any(one is callback for one in owner.callbacks):
                callbacks = owner
        elif "steps_per_epoch" in variables and isinstance(owner, keras.Model):
            names = ("steps_per_epoch", "epoch_iterator", "validation_data")
            return Fit(callbacks, *(variables[name] for name in names))
        frame = frame.f_back
    raise RuntimeError(f"{type(callback).__name__} works in the `callbacks` of model.fit() only")


def runs(callbacks: keras.callbacks.CallbackList | None, frame: FrameType | None) -> bool:
    """Whether a frame is of the `fit` of these callbacks, or was called by it.

    An error may end `fit` and not its frame: whoever keeps the traceback, as notebooks do, keeps all that is in it.
    """
    while callbacks is not None and frame is not None:
        variables = frame.f_locals
        if "steps_per_epoch" in variables and variables.get("callbacks") is callbacks:
            return True
        frame = frame.f_back
    return False
