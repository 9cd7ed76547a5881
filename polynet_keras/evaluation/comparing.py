"""Comparison of two models on the same images."""

import os
from dataclasses import dataclass

import numpy as np

from polynet_keras.basics.extras import require_extra
from polynet_keras.data.examples import Examples
from polynet_keras.evaluation.evaluating import Evaluation, evaluate
from polynet_keras.evaluation.loading import TrainedModel, trained
from polynet_keras.evaluation.paired import Paired
from polynet_keras.evaluation.pooling import Pooling
from polynet_keras.evaluation.scoring import check_pooling, fitted_to


@dataclass(frozen=True, eq=False)
class Comparison:
    """Two evaluations, and their common images.

    Attributes:
        first: evaluation of the model.
        second: evaluation of the other model.
        paired: counts of the images that both models could read.

    Examples:
        >>> from polynet_keras.data import open_split
        >>> comparison = compare(trained, trained, open_split(photos))
        >>> comparison.first.counts.top1, comparison.second.counts.top1, comparison.paired.difference
        (1.0, 1.0, 0.0)
    """

    first: Evaluation
    second: Evaluation
    paired: Paired


def compare(
    model: TrainedModel | str | os.PathLike,
    against: TrainedModel | str | os.PathLike,
    examples: Examples,
    *,
    batch_size: int = 32,
    crops: int = 1,
    pooling: Pooling | None = None,
    on_error: str = "error",
) -> Comparison:
    """Evaluates two models on the same images, each under its own protocol.

    Args:
        model: a name for `polynet_keras.load_model`, or the model that it returned.
        against: the other model.
        examples: a dataset of classes that both know, or of some of them.
        batch_size: as in `evaluate`.
        crops: crops per image, for both models.
        pooling: pooling of the crops, for both models.
        on_error: `"error"` or `"skip"`: how to handle an image that cannot be read; it counts for neither model.

    Raises:
        ValueError: as `evaluate`; or SciPy is not installed.

    Examples:
        >>> from polynet_keras.data import open_split
        >>> comparison = compare(trained, trained, open_split(photos))
        >>> comparison.paired
        Paired(both=10, first_only=0, second_only=0, neither=0)
    """
    require_extra("data", "scipy")
    pooling = pooling or Pooling()
    models = trained(model), trained(against)
    for one in models:  # before the first is evaluated, which may take hours
        check_pooling(one, pooling, crops)
        fitted_to(one, examples)
    first, second = (
        evaluate(one, examples, batch_size=batch_size, crops=crops, pooling=pooling, on_error=on_error)
        for one in models
    )
    # An image that one protocol can crop may be too narrow for the other.
    _, of_first, of_second = np.intersect1d(first.judged.indices, second.judged.indices, return_indices=True)
    return Comparison(first, second, Paired.of(first.judged.right[of_first], second.judged.right[of_second]))
