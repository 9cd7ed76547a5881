"""Classifying image files with a trained model's folder, or with a published checkpoint."""

import os
from collections.abc import Sequence
from dataclasses import dataclass

import keras
import numpy as np

from polynet_keras.basics.checks import check_integer
from polynet_keras.data.image_files import read_image
from polynet_keras.data.protocol import Preprocessing
from polynet_keras.evaluation.loading import TrainedModel, load_published, load_run
from polynet_keras.pretrained.registry import find_checkpoint, published

BATCH_SIZE = 32


@dataclass(frozen=True)
class Prediction:
    """The best classes of one image: (class name, probability) pairs, best first."""

    image: str
    classes: tuple[tuple[str, float], ...]


def predict(run_folder: str | os.PathLike, images: Sequence[str | os.PathLike], top: int = 3) -> list[Prediction]:
    """Classifies image files with the model of a run, prepared as its card says.

    Args:
        run_folder: a folder with `model.keras` and its card, as `polynet train` leaves it.
        images: paths of image files.
        top: how many classes to give for each image, at most as many as there are.

    Raises:
        ValueError: no image, an image that cannot be read, `top` < 1, or a folder without a model.
    """
    _check_arguments(images, top)
    return _predict(load_run(run_folder), images, top)


def predict_published(
    weights: str | os.PathLike, images: Sequence[str | os.PathLike], top: int = 3
) -> list[Prediction]:
    """Classifies image files with a published checkpoint, prepared as it was evaluated.

    Args:
        weights: the name of a checkpoint, of those that `polynet weights` lists; or a file of the released net,
            converted or as it was published, which is taken for what `"imagenet"` names.
        images: paths of image files.
        top: how many classes to give for each image, at most as many as there are.

    Raises:
        ValueError: no such checkpoint or file, a file of another net or of other classes, no image, an image that
            cannot be read, or `top` < 1.
        OSError: the checkpoint cannot be fetched.
    """
    _check_arguments(images, top)
    checkpoint = find_checkpoint(weights) or published("imagenet")
    for path in images:
        if not os.path.isfile(path):
            read_image(path, checkpoint.channels)  # says what is wrong, before anything is fetched
    return _predict(load_published(weights), images, top)


def _check_arguments(images: Sequence[str | os.PathLike], top: int) -> None:
    if not images:
        raise ValueError("no image to classify; name one or more image files")
    check_integer("top", top, 1)


def _predict(trained: TrainedModel, images: Sequence, top: int) -> list[Prediction]:
    # A batch at a time: the inputs of a whole folder of photographs would not fit in memory.
    batches = [images[start : start + BATCH_SIZE] for start in range(0, len(images), BATCH_SIZE)]
    probabilities = np.concatenate(
        [trained.model.predict_on_batch(_inputs(batch, trained.preprocessing)) for batch in batches]
    )
    best = np.argsort(-probabilities, axis=1, kind="stable")[:, :top]
    return [
        Prediction(os.fspath(path), tuple((trained.class_names[i], float(row[i])) for i in order))
        for path, row, order in zip(images, probabilities, best, strict=True)
    ]


def _inputs(images: Sequence[str | os.PathLike], preprocessing: Preprocessing) -> np.ndarray:
    inputs = np.stack([preprocessing(read_image(path, preprocessing.channels)) for path in images])
    return np.moveaxis(inputs, -1, 1) if keras.config.image_data_format() == "channels_first" else inputs
