"""The step of a TPU, on the processor: no TPU ever ran it."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from polynet_keras import PolyNet
from polynet_keras.engine.building import build
from polynet_keras.engine.distributed_model import DistributedModel
from polynet_keras.engine.tpu import TpuStep
from polynet_keras.training.optimizers import RMSprop


def compiled_net():
    keras.utils.set_random_seed(0)
    model = PolyNet(
        weights=None,
        structure="1 x [2-way] | 1 x [poly-2] | 1 x [ir]",
        width=0.1,
        residual_scale=0.3,
        input_shape=(75, 75, 3),
        classes=3,
    )
    model.compile(
        RMSprop(0.01, epsilon=1.0, gradient_accumulation_steps=2, clipnorm=1.0),
        "sparse_categorical_crossentropy",
        metrics=["accuracy"],
    )
    return model


@pytest.mark.slow
def test_sum_and_update_are_one_xla_program():
    """Three steps, with gradients that are clipped and accumulated, beside the steps that `fit` makes."""
    rng = np.random.default_rng(0)
    batches = [(rng.normal(size=(4, 75, 75, 3)).astype("float32"), rng.integers(0, 3, 4)) for _ in range(3)]
    expected = compiled_net()
    for x, y in batches:
        logs = expected.train_on_batch(x, y, return_dict=True)

    model = compiled_net()
    build(model, None, batches[0])
    step = tf.function(TpuStep(model, trains=True).whole_step, jit_compile=True, autograph=False)
    for x, y in batches:
        model.reset_metrics()
        votes = step((tf.constant(x), tf.constant(y)), tf.constant(True))
        assert float(votes) == 1
    assert int(model.optimizer.iterations) == int(expected.optimizer.iterations) == 1
    for name, value in model.get_metrics_result().items():
        assert float(value) == pytest.approx(float(logs[name]), rel=2e-3)
    for ours, theirs in zip(model.variables, expected.variables, strict=True):
        np.testing.assert_allclose(ours.numpy(), theirs.numpy(), rtol=1e-2, atol=1e-3, err_msg=ours.path)
    # One program, with no operation outside of it.
    inside = step.experimental_get_compiler_ir((tf.constant(x), tf.constant(y)), tf.constant(True))(stage="hlo")
    assert "ENTRY" in inside


def trained(strategy):
    with strategy.scope():
        keras.utils.set_random_seed(0)
        image = keras.Input((4,))
        model = DistributedModel(image, keras.layers.Dense(2)(image))
        model.compile(keras.optimizers.SGD(0.1, momentum=0.9), "mse", metrics=["mae"])
    x = np.random.default_rng(0).normal(size=(12, 4)).astype("float32")
    history = model.fit(x, x[:, :2], batch_size=4, epochs=2, verbose=0, shuffle=False)
    return model, history.history, model.evaluate(x, x[:, :2], verbose=0)


@pytest.mark.slow
def test_a_strategy_of_tpus_has_this_step_and_trains_as_others_do(monkeypatch):
    strategy = tf.distribute.OneDeviceStrategy("CPU:0")
    expected, logs, scores = trained(strategy)
    calls, whole_step = [], TpuStep.whole_step
    monkeypatch.setattr(TpuStep, "whole_step", lambda self, *args: calls.append(self) or whole_step(self, *args))
    monkeypatch.setattr(tf.distribute, "TPUStrategy", type(strategy))
    model, found, found_scores = trained(strategy)
    assert len(set(map(id, calls))) == 2  # fit's and evaluate's
    for name, values in logs.items():
        np.testing.assert_allclose(found[name], values, rtol=1e-5)
    np.testing.assert_allclose(found_scores, scores, rtol=1e-5)
    for ours, theirs in zip(model.get_weights(), expected.get_weights(), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5)


def test_the_first_line_says_that_no_tpu_ran_it():
    from polynet_keras.engine import tpu

    assert tpu.__doc__.splitlines()[0].startswith("Never run on a TPU")
