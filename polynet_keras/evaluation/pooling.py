"""Pooling: from the scores of all crops of an image to the probabilities of its classes."""

from dataclasses import dataclass

import numpy as np

from polynet_keras.basics.checks import check_choice
from polynet_keras.basics.names import size_text

POOLINGS = ("selective", "mean", "max")
SCORES = ("probabilities", "logits")

SLICE_VALUES = 2**22
"""Scores per slice of work: 32 MB in float64, of some 30 images with 144 crops of 1000 classes."""


def pool(
    logits: np.ndarray, pooling: str = "selective", fraction: float = 0.3, on: str = "probabilities"
) -> np.ndarray:
    """Pools the crops of each image, in float64.

    PolyNet's authors report their multi-crop numbers with a top-k pooling whose details they promised and never
    published. Selective pooling is our interpretation: the crops that show a class best decide its score, separately
    for each class, since an object fills some crops and is cut off in others.

    Args:
        logits: float array (images, crops, classes).
        pooling: `"selective"`, for each class the mean of the best-scoring `fraction` of the crops; `"mean"` of all
            crops; or `"max"`, the best one.
        fraction: fraction of the crops, above 0 and up to 1, rounded to a whole number of crops, at least one: 43 of
            144.
        on: the pooled values: `"probabilities"`, with each image's result divided by its sum, or `"logits"`, with the
            softmax afterwards.

    Returns:
        float64 array (images, classes) of probabilities; each row sums to 1.

    Raises:
        ValueError: the logits have another shape or are not finite, or a value is not accepted.

    Examples:
        >>> logits = np.log([[[0.9, 0.1], [0.5, 0.5]]])  # an image, two crops, two classes
        >>> pool(logits, "mean").round(2).tolist()
        [[0.7, 0.3]]
    """
    check_choice("pooling", pooling, POOLINGS)
    check_choice("on", on, SCORES)
    if not 0 < fraction <= 1:
        raise ValueError(f"fraction={fraction!r} must be above 0 and at most 1")
    if logits.ndim != 3 or 0 in logits.shape[1:]:
        raise ValueError(f"logits must have the shape (images, crops, classes); got {size_text(logits.shape)}")
    images, crops, classes = logits.shape
    best = {"selective": max(1, round(fraction * crops)), "mean": crops, "max": 1}[pooling]
    pooled = np.empty((images, classes))
    step = max(1, SLICE_VALUES // (crops * classes))
    for start in range(0, images, step):
        scores = logits[start : start + step].astype("float64")
        if not np.isfinite(scores).all():
            raise ValueError(
                "logits must be finite; there are NaN or infinite ones: the model or its inputs are broken"
            )
        if on == "probabilities":
            scores = _softmax(scores)
        scores.partition(crops - best, axis=1)
        pooled[start : start + step] = scores[:, crops - best :].mean(axis=1)
    return pooled / pooled.sum(axis=1, keepdims=True) if on == "probabilities" else _softmax(pooled)


def _softmax(logits: np.ndarray) -> np.ndarray:
    exponentials = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return exponentials / exponentials.sum(axis=-1, keepdims=True)


@dataclass(frozen=True)
class Pooling:
    """The settings of `pool` as a value.

    Examples:
        >>> pooling = Pooling("selective", fraction=0.3)
        >>> str(pooling)
        'selective 0.3 of probabilities'
        >>> pooling(np.zeros((1, 10, 2))).tolist()
        [[0.5, 0.5]]
    """

    pooling: str = "selective"
    fraction: float = 0.3
    on: str = "probabilities"

    def __post_init__(self):
        self(np.zeros((0, 1, 2), "float32"))  # refuses what is out of range, before anything is computed

    def __call__(self, logits: np.ndarray) -> np.ndarray:
        return pool(logits, self.pooling, self.fraction, self.on)

    def __str__(self) -> str:
        share = f" {self.fraction:g}" if self.pooling == "selective" else ""
        return f"{self.pooling}{share} of {self.on}"
