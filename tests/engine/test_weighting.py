"""How replicas' losses add up to the loss of the global batch, against Keras's own loss of the whole batch."""

from types import SimpleNamespace

import keras
import numpy as np
import pytest
import tensorflow as tf

from polynet_keras.engine.weighting import MEAN, SUM, WEIGHTED_MEAN, replica_weight, weighting_of


def mse(reduction):
    return keras.losses.MeanSquaredError(reduction=reduction)


def with_losses(losses):
    return SimpleNamespace(loss=losses)


@pytest.mark.parametrize(
    ("losses", "weighting"),
    [
        (None, MEAN),
        ("mse", MEAN),
        (lambda y, p: p, MEAN),
        (mse("sum_over_batch_size"), MEAN),
        (mse("mean"), MEAN),
        (mse("sum"), SUM),
        (mse("mean_with_sample_weight"), WEIGHTED_MEAN),
        ([mse("sum"), None, mse("sum")], SUM),
        ({"a": "mse", "b": mse("mean"), "c": None}, MEAN),
        ([None, None], MEAN),
    ],
)
def test_the_kind_of_reduction(losses, weighting):
    assert weighting_of(with_losses(losses)) == weighting


@pytest.mark.parametrize("losses", [mse(None), mse("none"), ["mse", mse("none")], [mse("none"), mse("sum")]])
def test_a_loss_without_reduction_is_refused(losses):
    with pytest.raises(ValueError, match="needs a reduction"):
        weighting_of(with_losses(losses))


@pytest.mark.parametrize(
    ("losses", "kinds"),
    [
        (["mse", mse("sum")], "sum, sum_over_batch_size"),
        ([mse("sum"), mse("mean_with_sample_weight")], "mean_with_sample_weight, sum"),
        ({"a": mse("mean"), "b": mse("mean_with_sample_weight")}, "mean_with_sample_weight, sum_over_batch_size"),
    ],
)
def test_several_kinds_of_reduction_are_refused(losses, kinds):
    with pytest.raises(ValueError, match=f"one kind of reduction; got {kinds}$"):
        weighting_of(with_losses(losses))


@pytest.mark.parametrize("with_weights", [False, True])
@pytest.mark.parametrize("reduction", [MEAN, SUM, WEIGHTED_MEAN])
def test_parts_add_up_to_the_loss_of_the_whole(reduction, with_weights):
    """As `ReplicatedStep` sums them: each loss times its weight over the sum of all weights; sums as often as parts."""
    rng = np.random.default_rng(0)
    y, p = rng.normal(size=(2, 9, 4)).astype("float32")
    sample_weight = rng.uniform(0.1, 3.0, 9).astype("float32") if with_weights else None
    loss = mse(reduction)
    parts = [slice(0, 1), slice(1, 7), slice(7, 9)]
    found = weights = 0.0
    for part in parts:
        weights_of_part = None if sample_weight is None else sample_weight[part]
        examples = tf.constant(float(part.stop - part.start))
        weight = replica_weight(weighting_of(with_losses(loss)), examples, weights_of_part)
        assert (weight.dtype, weight.shape) == (tf.float32, ())
        found += float(weight) * float(loss(y[part], p[part], weights_of_part))
        weights += float(weight)
    if reduction == SUM:
        weights /= len(parts)
    assert found / weights == pytest.approx(float(loss(y, p, sample_weight)), rel=1e-5)


def test_weights_in_numbers():
    examples, ones = tf.constant(5.0), tf.ones(5)
    assert float(replica_weight(MEAN, examples, 3 * ones)) == 5.0
    assert float(replica_weight(SUM, examples, 3 * ones)) == 1.0
    assert float(replica_weight(WEIGHTED_MEAN, examples, None)) == 5.0
    of_integers = replica_weight(WEIGHTED_MEAN, examples, tf.constant([1, 2, 3], tf.int64))
    assert (float(of_integers), of_integers.dtype) == (6.0, tf.float32)
    assert float(replica_weight(WEIGHTED_MEAN, examples, {"a": None, "b": 3 * ones})) == 15.0


def test_several_sample_weights_are_refused():
    with pytest.raises(ValueError, match="take one sample weight for all outputs; got 2$"):
        replica_weight(WEIGHTED_MEAN, tf.constant(5.0), [tf.ones(5), tf.ones(5)])
