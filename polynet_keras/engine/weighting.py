"""How much a replica's loss counts in the loss of the global batch."""

from collections.abc import Sequence

import keras
import tensorflow as tf

MEAN, SUM, WEIGHTED_MEAN = "sum_over_batch_size", "sum", "mean_with_sample_weight"


def weighting_of(model: keras.Model) -> str:
    """What the losses of a model are reduced by: `MEAN`, `SUM` or `WEIGHTED_MEAN`.

    Raises:
        ValueError: several losses are reduced in different ways: a replica cannot count differently in each of them;
            or one is not reduced at all.
    """
    losses = [loss for loss in keras.tree.flatten(model.loss) if loss is not None]
    reductions = {getattr(loss, "reduction", MEAN) for loss in losses}
    if reductions & {None, "none"}:
        raise ValueError(
            "under a distribution strategy a loss needs a reduction, and reduction='none' leaves a number for each "
            f"example; choose {MEAN!r} or {SUM!r}"
        )
    kinds = {reduction if reduction in (SUM, WEIGHTED_MEAN) else MEAN for reduction in reductions}
    if len(kinds) > 1:
        raise ValueError(
            f"under a distribution strategy all losses need one kind of reduction; got {', '.join(sorted(kinds))}"
        )
    return kinds.pop() if kinds else MEAN


def replica_weight(weighting: str, examples: tf.Tensor, sample_weight) -> tf.Tensor:
    """The weight of a replica's loss: its examples, their weights, or, where losses are sums, one for each replica.

    Args:
        weighting: what `weighting_of` returned.
        examples: of the replica, float32 scalar.
        sample_weight: of its batch, or None.

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
