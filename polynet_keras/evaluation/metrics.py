"""Exact metrics: counters that batches and workers add up, and metrics derived from them."""

import math
import sys
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from polynet_keras.basics.names import number_of, size_text

TOP = 5
"""With fewer classes, all are among the best, and top-5 is 1."""

CALIBRATION_BINS = 15
"""As in Guo et al. 2017, "On Calibration of Modern Neural Networks" (arXiv:1706.04599)."""

SMALLEST = sys.float_info.min
"""Replaces a probability of 0 in the loss, so that one image adds at most 708.4 to its sum."""

SUM_TOLERANCE = 0.01
"""Tolerance for an image's sum of probabilities around 1: half-precision networks stay within it, logits do not."""


@dataclass(frozen=True, eq=False)
class Counts:
    """Counts of the evaluated images. `a + b` counts the images of both.

    The integers are the same for any batch size and any split among workers, and so are the float64 sums up to
    rounding.

    Attributes:
        confusion: int64 array (classes, classes): number of images of class [true] that were predicted as [predicted].
        top5_hits: images whose class is among the five best.
        loss_sum: sum of the cross-entropies, in nats.
        bin_images: int64 array (15,): images by the probability of their predicted class, in equal bins of (0, 1]
            that include their upper end.
        bin_hits: int64 array (15,): number of them with a correct prediction.
        bin_confidence: float64 array (15,): the sum of their probabilities.

    Examples:
        >>> counts = Counts.of(np.array([[0.9, 0.1], [0.6, 0.4]]), labels=np.array([0, 1]))
        >>> counts.top1, counts.confusion.tolist()
        (0.5, [[1, 0], [1, 0]])
    """

    confusion: np.ndarray
    top5_hits: int
    loss_sum: float
    bin_images: np.ndarray
    bin_hits: np.ndarray
    bin_confidence: np.ndarray

    @classmethod
    def of(cls, probabilities: np.ndarray, labels: np.ndarray, valid: np.ndarray | None = None) -> "Counts":
        """Counts a batch.

        Equal probabilities rank in the order of the classes, whichever is the true one: the counted class is the one
        that `predict` names, and a network that cannot distinguish classes gains nothing.

        Args:
            probabilities: float array (images, classes), each row of sum 1.
            labels: integer array (images,).
            valid: bool array (images,), `False` for padding rows, which may have any values.

        Raises:
            ValueError: shapes differ, labels are not classes, or values are not finite or not probabilities.
        """
        _check_shapes(probabilities, labels, valid)
        if valid is not None:
            probabilities, labels = probabilities[valid], labels[valid]
        _check_values(probabilities, labels)
        labels = labels.astype("int64")
        images, classes = probabilities.shape
        predicted = probabilities.argmax(axis=1)  # the first of equal ones
        of_label = probabilities[np.arange(images), labels]
        better = probabilities > of_label[:, None]
        equal_before = (probabilities == of_label[:, None]) & (np.arange(classes) < labels[:, None])
        confidence = probabilities.max(axis=1).astype("float64")
        inner_edges = np.arange(1, CALIBRATION_BINS) / CALIBRATION_BINS
        bins = np.searchsorted(inner_edges, confidence, side="left")
        return cls(
            confusion=np.bincount(labels * classes + predicted, minlength=classes**2).reshape(classes, classes),
            top5_hits=int(((better | equal_before).sum(axis=1) < TOP).sum()),
            loss_sum=float(-np.log(np.maximum(of_label.astype("float64"), SMALLEST)).sum()),
            bin_images=np.bincount(bins, minlength=CALIBRATION_BINS),
            bin_hits=np.bincount(bins[predicted == labels], minlength=CALIBRATION_BINS),
            bin_confidence=np.bincount(bins, confidence, CALIBRATION_BINS),
        )

    def __add__(self, other: "Counts") -> "Counts":
        if self.classes != other.classes:
            raise ValueError(f"counts of {self.classes} and of {other.classes} classes cannot be added")
        return Counts(
            self.confusion + other.confusion,
            self.top5_hits + other.top5_hits,
            self.loss_sum + other.loss_sum,
            self.bin_images + other.bin_images,
            self.bin_hits + other.bin_hits,
            self.bin_confidence + other.bin_confidence,
        )

    @property
    def classes(self) -> int:
        return len(self.confusion)

    @property
    def images(self) -> int:
        return int(self.confusion.sum())

    @property
    def top1_hits(self) -> int:
        return int(self.confusion.trace())

    def check_complete(self, expected: int) -> None:
        """Raises a `ValueError` unless exactly `expected` images were counted."""
        if self.images != expected:
            raise ValueError(
                f"evaluated {self.images:,} of {expected:,} images; the numbers would be of another dataset"
            )

    @property
    def top1(self) -> float:
        """Share of the images whose class is the best, 0 to 1. It and the other metrics are nan without an image."""
        return _share(self.top1_hits, self.images)

    @property
    def top5(self) -> float:
        """Share of the images whose class is among the five best."""
        return _share(self.top5_hits, self.images)

    @property
    def loss(self) -> float:
        """Mean cross-entropy, in nats."""
        return _share(self.loss_sum, self.images)

    @property
    def ece(self) -> float:
        """Expected calibration error, 0 to 1: the gap of confidence and accuracy per bin, averaged over all images."""
        return _share(float(np.abs(self.bin_hits - self.bin_confidence).sum()), self.images)

    @property
    def class_images(self) -> np.ndarray:
        """int64 array (classes,): images of each class."""
        return self.confusion.sum(axis=1)

    @property
    def class_predictions(self) -> np.ndarray:
        """int64 array (classes,): images predicted as each class."""
        return self.confusion.sum(axis=0)

    @property
    def class_accuracy(self) -> np.ndarray:
        """float64 array (classes,): recall, the share of a class's images with a correct prediction.

        It, `class_precision` and `class_f1` are nan where they are undefined, as with `zero_division=nan` in
        scikit-learn.
        """
        return _shares(self.confusion.diagonal(), self.class_images)

    @property
    def class_precision(self) -> np.ndarray:
        """float64 array (classes,): share of correct predictions among the images predicted as a class."""
        return _shares(self.confusion.diagonal(), self.class_predictions)

    @property
    def class_f1(self) -> np.ndarray:
        """float64 array (classes,): the harmonic mean of both; 0 if one is undefined, nan if both are."""
        return _shares(2 * self.confusion.diagonal(), self.class_images + self.class_predictions)

    def worst_pairs(self, count: int) -> tuple[tuple[int, int, int], ...]:
        """Returns (true class, predicted class, images) of the most frequent confusions, worst first, up to `count`."""
        mistakes = self.confusion - np.diag(self.confusion.diagonal())
        worst = np.argsort(-mistakes, axis=None, kind="stable")[:count]
        pairs = zip(*np.unravel_index(worst, mistakes.shape), strict=True)
        return tuple((int(i), int(j), int(mistakes[i, j])) for i, j in pairs if mistakes[i, j])

    def interval(self) -> tuple[float, float]:
        """The 95 % confidence interval of `top1`; see `wilson_interval`."""
        return wilson_interval(self.top1_hits, self.images)


def wilson_interval(hits: int, images: int) -> tuple[float, float]:
    """The 95 % score interval of a share (E. B. Wilson, J. Am. Stat. Assoc. 22, 1927), good for few images too.

    Returns:
        Its two ends, 0 to 1; (nan, nan) without an image.
    """
    if not images:
        return math.nan, math.nan
    z = NormalDist().inv_cdf(0.975)
    share = hits / images
    middle = share + z**2 / (2 * images)
    reach = z * math.sqrt(share * (1 - share) / images + (z / (2 * images)) ** 2)
    low, high = ((middle + side * reach) / (1 + z**2 / images) for side in (-1, 1))
    # At the ends the formula gives 0 and 1, but floating point only comes close.
    return (low if hits else 0.0), (high if hits < images else 1.0)


def _share(total: float, images: int) -> float:
    return total / images if images else math.nan


def _shares(parts: np.ndarray, wholes: np.ndarray) -> np.ndarray:
    """Divides two int64 arrays; the quotient is nan where the divisor is 0."""
    return np.divide(parts, wholes, out=np.full(len(wholes), np.nan), where=wholes > 0)


def _check_shapes(probabilities: np.ndarray, labels: np.ndarray, valid: np.ndarray | None) -> None:
    if np.ndim(probabilities) != 2 or np.shape(labels) != probabilities.shape[:1] or not probabilities.shape[1]:
        raise ValueError(
            f"expected probabilities (images, classes) and labels (images,); got the shapes {np.shape(probabilities)} "
            f"and {np.shape(labels)}"
        )
    if valid is not None and (valid.shape != labels.shape or valid.dtype != bool):
        raise ValueError(
            f"valid must be bool, of the labels' shape, {size_text(labels.shape)}; got {valid.dtype}, "
            f"{size_text(valid.shape)}"
        )


def _check_values(probabilities: np.ndarray, labels: np.ndarray) -> None:
    images, classes = probabilities.shape
    if not np.issubdtype(labels.dtype, np.integer) or ((labels < 0) | (labels >= classes)).any():
        raise ValueError(f"labels must be integers of at least 0, below the {classes} classes of the probabilities")
    broken = int((~np.isfinite(probabilities)).any(axis=1).sum())
    if broken:
        raise ValueError(f"{broken} of {number_of(images, 'image')} have probabilities that are not finite")
    sums = probabilities.sum(axis=1, dtype="float64")
    wrong = (np.abs(sums - 1) > SUM_TOLERANCE) | (probabilities < 0).any(axis=1)
    if wrong.any():
        first = wrong.argmax()
        raise ValueError(
            f"{number_of(int(wrong.sum()), 'row')} of {images} must be probabilities, at least 0 and of sum 1: the "
            f"first sums to {sums[first]:.4g} and has a least value of {probabilities[first].min():.4g}; logits need a "
            "softmax"
        )
