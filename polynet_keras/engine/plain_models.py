"""Keras's own models under a strategy of several workers, such as a `keras.Sequential` that begins with a PolyNet.

Keras's `fit` fails there (keras-team/keras issue 20585). Once a model of this package is made in the scope of such a
strategy, every `keras.Model` of that scope trains as `DistributedTraining` does. With other strategies, and without
one, Keras's methods are called as before.
"""

import functools
from collections.abc import Callable
from typing import Any

import keras

from polynet_keras.basics.keras_internals import CALLED_BY_KERAS
from polynet_keras.cluster.workers import worker_count
from polynet_keras.engine.batches import share_of_worker
from polynet_keras.engine.building import check_keras

CALLED_BY_USERS = ("fit", "evaluate", "predict")
USED_BY_STEPS = ("_tensorflow_strategy", "compiled_function", "gradient_dtype", "interruption", "training_session")


def train_plain_models(model: keras.Model, ours: type) -> None:
    """Makes Keras's own models of several workers train as `DistributedTraining` does; one call is enough.

    Args:
        model: any model; Keras's internals are checked on it.
        ours: `DistributedTraining`, which imports this file.

    Raises:
        RuntimeError: Keras lacks internals that this function uses.
    """
    if hasattr(keras.Model, USED_BY_STEPS[0]):
        return
    check_keras(model)
    for name in USED_BY_STEPS:
        setattr(keras.Model, name, vars(ours)[name])
    for name in CALLED_BY_USERS:
        _replace(name, ours, functools.partial(_on_this_worker, vars(ours)["_on_this_worker"], name))
    for name in CALLED_BY_KERAS:
        _replace(name, ours, functools.partial(_as_distributed, vars(ours)[name]))
    _replace("predict_on_batch", ours, _share_of_worker)


def _replace(name: str, ours: type, function: Callable[..., Any]) -> None:
    """Makes a Keras method call a function, with the method as first argument, for a plain model of several workers."""
    keras_method = getattr(keras.Model, name)

    @functools.wraps(keras_method)
    def method(self, *args, **kwargs):
        if isinstance(self, ours) or worker_count(self.distribute_strategy) == 1:
            return keras_method(self, *args, **kwargs)
        return function(keras_method, self, *args, **kwargs)

    setattr(keras.Model, name, method)


def _on_this_worker(arguments: Callable, name: str, keras_method: Callable, model: keras.Model, *args, **kwargs):
    return keras_method(model, **arguments(model, name, args, kwargs))


def _as_distributed(ours: Callable, keras_method: Callable, model: keras.Model, *args, **kwargs):
    return ours(model, *args, **kwargs)


def _share_of_worker(keras_method: Callable, model: keras.Model, x):
    return keras_method(model, share_of_worker(x, model.distribute_strategy))
