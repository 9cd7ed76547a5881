"""The difference between an exported model and its Keras model, as recorded on its card."""

from dataclasses import dataclass

import numpy as np

from polynet_keras.basics.json_fields import Fields
from polynet_keras.evaluation.paired import Paired


@dataclass(frozen=True)
class Top1:
    """Numbers of correct predictions of two models on images with known classes.

    Attributes:
        original: correct predictions of the Keras model.
        exported: correct predictions of the exported model.
        drop: percentage points of top-1 that the exported model loses; below 0 if it gains.
        drop_low, drop_high: the 95 % confidence interval of `drop` (`evaluation.paired`).
    """

    original: int
    exported: int
    drop: float
    drop_low: float
    drop_high: float

    @classmethod
    def of(cls, original: np.ndarray, exported: np.ndarray) -> "Top1":
        """Counts two bool arrays (images,) of correct predictions, one for each model."""
        paired = Paired.of(original, exported)
        low, high = paired.interval()
        return cls(paired.first_hits, paired.second_hits, 100 * paired.difference, 100 * low, 100 * high)


@dataclass(frozen=True)
class Comparison:
    """Comparison of an artifact in its own runtime with its Keras model.

    Attributes:
        data: name of the images.
        images: number of images.
        max_difference: the largest absolute difference of a probability.
        top1_agreement: the share of the images with the same best class, from 0 to 1.
        top1: correct predictions of both; None if the images' classes are unknown.
    """

    data: str
    images: int
    max_difference: float
    top1_agreement: float
    top1: Top1 | None = None

    @classmethod
    def from_fields(cls, values: Fields) -> "Comparison":
        """Reads the comparison of a card; cards of version 0.1 have no `top1`."""
        images, largest = values.whole("images"), values.number("max_difference", most=1e9)
        agreement = values.number("top1_agreement", most=1.0)
        known = values.take("top1") if "top1" in values else None
        top1 = None if known is None else _top1(Fields(known, "comparison.top1"), images)
        comparison = cls(values.text("data"), images, largest, agreement, top1)
        values.end()
        return comparison


def _top1(values: Fields, images: int) -> Top1:
    counts = (values.whole(name, most=images) for name in ("original", "exported"))
    points = (values.number(name, least=-100, most=100) for name in ("drop", "drop_low", "drop_high"))
    top1 = Top1(*counts, *points)
    values.end()
    return top1
