"""Classifying image files with a trained model."""

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from polynet_keras.basics.checks import check_integer
from polynet_keras.data.crops import check_crops
from polynet_keras.data.image_paths import ImagePaths, image_paths
from polynet_keras.evaluation.image_outputs import image_outputs
from polynet_keras.evaluation.loading import TrainedModel, trained
from polynet_keras.evaluation.pooling import Pooling
from polynet_keras.evaluation.scoring import check_pooling


@dataclass(frozen=True)
class Prediction:
    """What a model says of an image file.

    Attributes:
        image: its path.
        classes: the best ones, best first: (class name, probability) pairs; none where the file cannot be read.
        error: why it cannot be read, or `None`.
    """

    image: str
    classes: tuple[tuple[str, float], ...]
    error: str | None = None


def predict(
    model: TrainedModel | str | os.PathLike,
    images: str | os.PathLike | Iterable[str | os.PathLike],
    top: int = 5,
    crops: int = 1,
    pooling: Pooling | None = None,
    batch_size: int = 32,
) -> list[Prediction]:
    """Classifies image files, prepared as the model's card says.

    Args:
        model: a name that `polynet_keras.load_model` takes, or what that returns.
        images: files; folders, for all images below them, sorted; and patterns such as `"photos/*.jpg"`.
        top: how many classes to give for each image, at most as many as there are.
        crops: of each image that the model is shown: 1, 10 or 144.
        pooling: of the crops; by default `Pooling()`.
        batch_size: images, or crops of one image, that go through the model at once.

    Returns:
        One for each image, in their order; a file that cannot be read has an `error`.

    Raises:
        ValueError: no image, a value out of range, or no such model or one that cannot be read.
        OSError: a published checkpoint cannot be fetched.
    """
    _check_arguments(top, crops, batch_size)
    paths = image_paths(images)
    return list(predictions(trained(model), paths, top, crops, pooling, batch_size))


def _check_arguments(top: int, crops: int, batch_size: int) -> None:
    """Checks arguments of `predict` before anything is loaded."""
    check_integer("top", top, 1)
    check_integer("batch_size", batch_size, 1)
    check_crops("crops", crops)


def predictions(
    model: TrainedModel,
    images: ImagePaths,
    top: int = 5,
    crops: int = 1,
    pooling: Pooling | None = None,
    batch_size: int = 32,
) -> Iterator[Prediction]:
    """Yields what `predict` returns while it is computed, in the order of the files; with a progress bar."""
    pooling = pooling or Pooling()
    check_pooling(model, pooling, crops)
    names = model.class_names
    for index, logits, error in image_outputs(model, images, crops, batch_size):
        if logits is None:
            yield Prediction(images.paths[index], (), error)
            continue
        (row,) = pooling(logits[np.newaxis])
        order = np.argsort(-row, kind="stable")[:top]
        yield Prediction(images.paths[index], tuple((names[i], float(row[i])) for i in order))
