"""Outputs that were shortened by the row of a replica without examples are to their loss what they were."""

import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf

from polynet_keras.engine import stand_in
from polynet_keras.engine.distributed_model import DistributedModel
from tests.engine.saturated import LOSSES, examples, model_of


@pytest.fixture(autouse=True)
def quiet():
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*from_logits=True.*was produced by")
        yield


def trained(model_class, strategy, drop_remainder, policy, **options):
    """Losses by output, and how far one step moved the weights."""
    keras.config.set_dtype_policy(policy)
    try:
        with strategy.scope():
            model, losses, targets = model_of(model_class)
            model.compile(keras.optimizers.SGD(1.0), losses, **options)
    finally:
        keras.config.set_dtype_policy("float32")
    dataset = tf.data.Dataset.from_tensor_slices((examples(), targets)).batch(8, drop_remainder=drop_remainder)
    before = [np.asarray(w) for w in model.trainable_variables]
    history = model.fit(dataset, verbose=0).history
    return history, [np.asarray(w) - b for w, b in zip(model.trainable_variables, before, strict=True)]


@pytest.fixture(scope="module", params=["float32", "mixed_float16"])
def policy_and_expected(request):
    with warnings.catch_warnings(action="ignore"):
        return request.param, trained(keras.Model, tf.distribute.get_strategy(), True, request.param)


@pytest.mark.slow
@pytest.mark.parametrize("drop_remainder", [False, True], ids=["open", "closed"])
def test_losses_and_gradients_of_saturated_outputs_are_those_of_no_strategy(policy_and_expected, drop_remainder):
    policy, (expected, expected_moves) = policy_and_expected
    found, moves = trained(DistributedModel, tf.distribute.MirroredStrategy(["CPU:0"]), drop_remainder, policy)
    assert len(LOSSES) == 5
    assert max(max(values) for values in expected.values()) > 30  # which no clipped probability reaches
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, rtol=1e-5, atol=1e-6, err_msg=name)
    for ours, theirs in zip(moves, expected_moves, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-5)


def test_an_empty_part_has_the_shapes_of_an_empty_part():
    added = tf.constant(1)
    output = tf.constant([[1.0, 2.0]])
    output._keras_mask = tf.constant([True])
    output._keras_logits = tf.constant([[3.0, 4.0]])
    kept = stand_in.emptied({"a": [output, tf.constant(5.0), None]}, added)["a"]
    assert kept[0].shape == (0, 2)
    assert kept[0]._keras_mask.shape == (0,)
    assert kept[0]._keras_logits.shape == (0, 2)
    assert kept[1] == 5.0
    assert kept[2] is None


@pytest.mark.parametrize(("added", "rows"), [(0, 2), (1, 0)])
def test_what_keras_finds_by_way_of_an_output_stays(added, rows):
    seen = {}

    @tf.function
    def step(x):
        seen["attribute"] = keras.activations.softmax(x)
        seen["operation"] = tf.nn.sigmoid(x)
        seen["ragged"] = tf.RaggedTensor.from_row_lengths(tf.range(3), [1, 2])
        seen["kept"] = kept = stand_in.emptied(dict(seen), tf.constant(added))
        return kept, kept["attribute"]._keras_logits, kept["operation"].op.inputs[0]

    x = np.arange(6.0, dtype="float32").reshape(2, 3)
    kept, logits, operand = step(x)
    assert seen["kept"]["operation"].op.type == "Sigmoid"
    np.testing.assert_allclose(kept["attribute"], tf.nn.softmax(x)[:rows], rtol=1e-6)
    np.testing.assert_array_equal(kept["operation"], tf.nn.sigmoid(x)[:rows])
    np.testing.assert_array_equal(logits, x[:rows])
    np.testing.assert_array_equal(operand, x[:rows])
    assert kept["ragged"].to_list() == [[0], [1, 2]][:rows]
