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
    """A prediction for an image file.

    Attributes:
        image: path of the file.
        classes: (class name, probability) pairs of the best classes, best first; none if the file cannot be read.
        error: the reason if it cannot be read, or `None`.

    Examples:
        >>> _ = (folder / "broken.jpg").write_bytes(b"not an image")
        >>> good, broken = predict(trained, [photos / "cat" / "1.jpg", folder / "broken.jpg"])
        >>> good.classes[0][0], broken.classes
        ('cat', ())
        >>> broken.error is None
        False
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
    """Classifies image files, with the preprocessing on the model's card.

    Args:
        model: a name for `polynet_keras.load_model`, or the model that it returned.
        images: files; folders, for all images below them, sorted; and patterns such as `"photos/*.jpg"`.
        top: number of classes per image; at most the number of all classes.
        crops: crops per image: 1, 10 or 144.
        pooling: pooling of the crops; by default `Pooling()`.
        batch_size: images, or crops of one image, in one forward pass.

    Returns:
        One prediction for each image, in their order; a file that cannot be read has an `error`.

    Raises:
        ValueError: there is no image, a value is out of range, or the model does not exist or cannot be read.
        OSError: a published checkpoint cannot be fetched.

    Examples:
        >>> predictions = predict(trained, photos, top=1)
        >>> [prediction.classes[0][0] for prediction in predictions]
        ['cat', 'cat', 'cat', 'cat', 'cat', 'dog', 'dog', 'dog', 'dog', 'dog']
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
    """Yields the predictions of `predict` as they are computed, in the order of the files; with a progress bar."""
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
