"""The model files of a run."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import keras

from polynet_keras.basics.files import written_whole
from polynet_keras.basics.keras_internals import every_layer
from polynet_keras.models.inception import BN_MOMENTUM


def save_model(model: keras.Model, file: Path) -> None:
    """Writes a model file whole, or not at all.

    Its batch normalizations have the usual momentum, whatever the run's is: a later training may need that one.

    Raises:
        OSError: the file cannot be written.
    """
    with written_whole(file) as partial, _usual_momentum(model):
        model.save(partial)


@contextlib.contextmanager
def _usual_momentum(model: keras.Model) -> Iterator[None]:
    layers = [layer for layer in every_layer(model) if isinstance(layer, keras.layers.BatchNormalization)]
    momentum_of_run = [layer.momentum for layer in layers]
    for layer in layers:
        layer.momentum = BN_MOMENTUM
    try:
        yield
    finally:
        for layer, momentum in zip(layers, momentum_of_run, strict=True):
            layer.momentum = momentum
