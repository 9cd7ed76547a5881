"""Runs of a second: a few layers, and pictures from memory instead of the pipeline, which takes seconds to trace."""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Mapping

import keras
import numpy as np
import pytest
import tensorflow as tf

from polynet_keras.data.examples import Source
from polynet_keras.data.pipeline import Batches
from tests.data.arrays import examples_of, png, random_images
from tests.reference import few_layers

STEPS = 3
"""Of an epoch, where 48 images train."""


@contextlib.contextmanager
def runs_in_memory(
    counts: Mapping[str, int], tensorboard: type, network: Callable[..., keras.Model] = few_layers
) -> Iterator[dict[str, tf.data.Dataset]]:
    """Has `train` use bright and dark pictures.

    Args:
        counts: of the images of `"training"`, 48, of `"held_out"`, and perhaps of `"validation"`.
        tensorboard: the class that stands in for Keras's callback of this name.
        network: stands in for `PolyNet`, whose arguments it takes.

    Yields:
        The batches by those names.
    """
    rng = np.random.default_rng(0)
    data, parts = {}, {}
    for name, count in counts.items():
        labels = np.arange(count) % 2
        images = rng.normal(labels[:, None, None, None], 1.5, (count, 75, 75, 3)).astype("float32")
        data[name] = tf.data.Dataset.from_tensor_slices((images, labels)).batch(16)
        part = dataclasses.replace(examples_of([png(image) for image in random_images(2)]), name=name)
        parts[name] = dataclasses.replace(part, count=count, labels=labels, fingerprint=name)

    def training_data(recipe, source, preprocessing, unreadable, strategy, first_step, features):
        return Batches(data["training"].repeat().skip(first_step), STEPS)

    with pytest.MonkeyPatch.context() as patch:
        runs = "polynet_keras.training.runs"
        patch.setattr(f"{runs}.opening.open_source", lambda *arguments: Source(**parts))
        patch.setattr(f"{runs}.opening.tell_inventory", lambda *arguments: None)
        patch.setattr(f"{runs}.train.training_data", training_data)
        patch.setattr(f"{runs}.train.held_out_data", lambda recipe, part, *others: data[part.name])
        patch.setattr(f"{runs}.train.plot_curves", lambda *files: None)
        patch.setattr(f"{runs}.train.held_out_samples", lambda *arguments: ())
        patch.setattr(f"{runs}.preparation.PolyNet", network)
        patch.setattr(keras.callbacks, "TensorBoard", tensorboard)
        yield data
