"""How far an exported model is from the one that it came from, as its card says it."""

from dataclasses import dataclass

import numpy as np

from polynet_keras.basics.json_fields import Fields
from polynet_keras.evaluation.paired import Paired


@dataclass(frozen=True)
class Top1:
    """Of images whose class is known, how many two models predict rightly.

    Attributes:
        original: how many the Keras model does.
        exported: how many the exported one does.
        drop: by how many percentage points of top-1 the exported one is worse; below 0 where it is better.
        drop_low, drop_high: the 95 % confidence interval of `drop` (`evaluation.paired`).
    """

    original: int
    exported: int
    drop: float
    drop_low: float
    drop_high: float

    @classmethod
    def of(cls, original: np.ndarray, exported: np.ndarray) -> "Top1":
        """Of two bool arrays (images,): which images each model predicts rightly."""
        paired = Paired.of(original, exported)
        low, high = paired.interval()
        return cls(paired.first_hits, paired.second_hits, 100 * paired.difference, 100 * low, 100 * high)


@dataclass(frozen=True)
class Comparison:
    """An artifact in its own runtime beside the Keras model that it came from.

    Attributes:
        data: what it was run on.
        images: how many of it.
        max_difference: the largest absolute difference of a probability.
        top1_agreement: the share of the images whose best class is the same, from 0 to 1.
        top1: what both get right; None where the images' classes are not known.
    """

    data: str
    images: int
    max_difference: float
    top1_agreement: float
    top1: Top1 | None = None

    @classmethod
    def from_fields(cls, values: Fields) -> "Comparison":
        """Of a card; those of version 0.1 have no `top1`."""
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
