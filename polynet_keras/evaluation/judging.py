"""Judges a model's scores: the counts, and the images that deserve a look."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from absl import logging

from polynet_keras.data.examples import Examples
from polynet_keras.evaluation.metrics import Counts
from polynet_keras.evaluation.pages import Picture
from polynet_keras.evaluation.pooling import Pooling
from polynet_keras.evaluation.scoring import Scored

PICTURES = 24
"""Number of worst mistakes, and of least sure images, in a report."""

Ranked = tuple[float, int, int, np.ndarray]
"""An image's rank value, index, label, and probabilities (classes,)."""


@dataclass(frozen=True, eq=False)
class Judged:
    """The results of judging.

    Attributes:
        counts: counts of all images.
        mistakes: the worst mistakes; see `worst_mistakes`.
        unsure: the images that the model is least sure of; see `least_sure`.
        indices: int64 array (images,): indices of the images in the dataset.
        right: bool array (images,): whether the prediction is correct.
    """

    counts: Counts
    mistakes: tuple[Picture, ...]
    unsure: tuple[Picture, ...]
    indices: np.ndarray
    right: np.ndarray


def judged(batches: Iterable[Scored], pooling: Pooling, examples: Examples) -> Judged:
    """Judges batches one after the other, and keeps none of them.

    Raises:
        ValueError: there is no batch.
    """
    counts: Counts | None = None
    mistakes: list[Ranked] = []
    unsure: list[Ranked] = []
    all_indices, all_right = [], []
    for logits, labels, indices in batches:
        probabilities = pooling(logits)
        counted = Counts.of(probabilities, labels)
        counts = counted if counts is None else counts + counted
        all_indices.append(indices)
        all_right.append(probabilities.argmax(axis=1) == labels)
        for found, ranks, order in (
            (mistakes, probabilities[np.arange(len(labels)), labels], worst_mistakes(probabilities, labels, PICTURES)),
            (unsure, _margins(probabilities), least_sure(probabilities, PICTURES)),
        ):
            found += [(ranks[i], int(indices[i]), int(labels[i]), probabilities[i]) for i in order]
            found.sort(key=lambda image: image[:2])
            del found[PICTURES:]
    if counts is None:
        raise ValueError(f"{examples.name} has no image that can be read")
    return Judged(
        counts,
        _pictures(mistakes, examples),
        _pictures(unsure, examples),
        np.concatenate(all_indices),
        np.concatenate(all_right),
    )


def worst_mistakes(probabilities: np.ndarray, labels: np.ndarray, count: int) -> np.ndarray:
    """Returns the wrongly predicted images with the lowest probability for their true class, worst first.

    Args:
        probabilities: float array (images, classes).
        labels: integer array (images,).
        count: most images to return.

    Returns:
        int64 array of the images' indices.
    """
    wrong = np.flatnonzero(probabilities.argmax(axis=1) != labels)
    return wrong[np.argsort(probabilities[wrong, labels[wrong]], kind="stable")[:count]]


def least_sure(probabilities: np.ndarray, count: int) -> np.ndarray:
    """Returns the images whose two most probable classes are nearest to each other, nearest first.

    Args:
        probabilities: float array (images, classes).
        count: most images to return.

    Returns:
        int64 array of the images' indices.
    """
    return np.argsort(_margins(probabilities), kind="stable")[:count]


def _margins(probabilities: np.ndarray) -> np.ndarray:
    """Returns the best class's probability minus the second's: (images,); with one class, its own probability."""
    two_best = np.partition(np.pad(probabilities, ((0, 0), (1, 0))), -2, axis=1)[:, -2:]
    return two_best[:, 1] - two_best[:, 0]


def _pictures(ranked: list[Ranked], examples: Examples) -> tuple[Picture, ...]:
    pictures = []
    for _, index, label, probabilities in ranked:
        try:
            pictures.append(Picture(examples.shown_name(index), examples.image(index), probabilities, label))
        except ValueError as error:  # it existed when it was counted
            logging.warning("a picture is left out of the report: %s", error)
    return tuple(pictures)
