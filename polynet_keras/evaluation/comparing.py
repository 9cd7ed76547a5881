"""Two models on the same images: which one is better."""

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
    """Two evaluations, and what they have in common.

    Attributes:
        first: of the model.
        second: of the one it is compared with.
        paired: of the images that both could be shown.
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
        model: a name that `polynet_keras.load_model` takes, or what that returns.
        against: another one.
        examples: a dataset of classes that both know, or of some of them.
        batch_size: as of `evaluate`.
        crops: of each image, for both models.
        pooling: of the crops, for both.
        on_error: `"error"` or `"skip"`: what to do about an image that cannot be read; it counts for neither model.

    Raises:
        ValueError: as `evaluate`; or SciPy is not installed.
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
    # What one protocol can crop may be too narrow for the other's.
    _, of_first, of_second = np.intersect1d(first.judged.indices, second.judged.indices, return_indices=True)
    return Comparison(first, second, Paired.of(first.judged.right[of_first], second.judged.right[of_second]))
