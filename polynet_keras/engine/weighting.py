"""The weight of a replica's loss in the loss of the global batch."""

from collections.abc import Sequence

import keras
import tensorflow as tf

MEAN, SUM, WEIGHTED_MEAN = "sum_over_batch_size", "sum", "mean_with_sample_weight"


def weighting_of(model: keras.Model) -> str:
    """Returns the reduction of a model's losses: `MEAN`, `SUM` or `WEIGHTED_MEAN`.

    Raises:
        ValueError: the losses have different reductions, but a replica has one weight for all of them; or a loss is not
            reduced.
    """
    losses = [loss for loss in keras.tree.flatten(model.loss) if loss is not None]
    reductions = {getattr(loss, "reduction", MEAN) for loss in losses}
    if reductions & {None, "none"}:
        raise ValueError(
            "under a distribution strategy a loss needs a reduction, but reduction='none' leaves a number for each "
            f"example; choose {MEAN!r} or {SUM!r}"
        )
    kinds = {reduction if reduction in (SUM, WEIGHTED_MEAN) else MEAN for reduction in reductions}
    if len(kinds) > 1:
        raise ValueError(
            f"under a distribution strategy all losses need one kind of reduction; got {', '.join(sorted(kinds))}"
        )
    return kinds.pop() if kinds else MEAN


def replica_weight(weighting: str, examples: tf.Tensor, sample_weight) -> tf.Tensor:
    """Returns the weight of a replica's loss: its examples, their weights, or 1 for each replica if losses are sums.

    Args:
        weighting: the result of `weighting_of`.
        examples: the number of the replica's examples, float32 scalar.
        sample_weight: the sample weights of its batch, or None.

    Returns:
        float32 scalar.

    Raises:
        ValueError: several sample weights for losses that are divided by their sum.
    """
    if weighting == SUM:
        return tf.ones(())
    if weighting == WEIGHTED_MEAN and sample_weight is not None:
        weights: Sequence = [w for w in keras.tree.flatten(sample_weight) if w is not None]
        if len(weights) > 1:
            raise ValueError(
                f"under a distribution strategy losses with reduction={WEIGHTED_MEAN!r} take one sample weight for all "
                f"outputs; got {len(weights)}"
            )
        return tf.reduce_sum(tf.cast(weights[0], "float32"))
    return examples
