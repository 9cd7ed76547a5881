"""The optimizers that recipes make, against NumPy in float64."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from polynet_keras.training.making import OPTIMIZERS, make_optimizer
from polynet_keras.training.recipes.optimizer import DEFAULTS, OptimizerSettings

RATE = 0.1


@pytest.fixture
def model():
    keras.utils.set_random_seed(0)
    inputs = keras.Input((4,))
    x = keras.layers.Dense(3, name="dense", bias_initializer="ones")(inputs)
    x = keras.layers.BatchNormalization(name="normalization", beta_initializer="ones")(x)
    return keras.Model(inputs, keras.layers.Dense(2, name="head", bias_initializer="ones")(x))


def values(model):
    return {variable.path: variable.numpy().astype("float64") for variable in model.trainable_variables}


def gradients(model, seed):
    rng = np.random.default_rng(seed)
    return [rng.normal(size=variable.shape).astype("float32") for variable in model.trainable_variables]


def apply(optimizer, model, gradients):
    optimizer.apply([tf.constant(g) for g in gradients], model.trainable_variables)


@pytest.mark.parametrize("name", DEFAULTS)
def test_every_optimizer_moves_all_weights(model, name):
    optimizer = make_optimizer(OptimizerSettings(name), RATE, 0.0, model)
    assert type(optimizer) is OPTIMIZERS[name]
    before = values(model)
    for seed in range(3):
        apply(optimizer, model, gradients(model, seed))
    after = values(model)
    assert all(np.abs(after[path] - before[path]).mean() > 1e-3 for path in before)


@pytest.mark.parametrize("name", DEFAULTS)
def test_weight_decay_takes_its_share_of_kernels_alone(model, name):
    """With gradients of zero nothing else moves."""
    optimizer = make_optimizer(OptimizerSettings(name), RATE, 0.5, model)
    before = values(model)
    zeros = [np.zeros(variable.shape, "float32") for variable in model.trainable_variables]
    apply(optimizer, model, zeros)
    for path, value in values(model).items():
        share = 1 - RATE * 0.5 if path.endswith("kernel") else 1.0
        np.testing.assert_allclose(value, before[path] * share, rtol=1e-6, err_msg=path)
    assert {path.rpartition("/")[2] for path in before} == {"kernel", "bias", "gamma", "beta"}


def test_sgd_has_nesterovs_momentum(model):
    optimizer = make_optimizer(OptimizerSettings("sgd"), RATE, 0.0, model)
    (path, expected), *_ = values(model).items()
    velocity = np.zeros_like(expected)
    for seed in range(3):
        gradient = gradients(model, seed)
        apply(optimizer, model, gradient)
        velocity = 0.9 * velocity - RATE * gradient[0]
        expected = expected + 0.9 * velocity - RATE * gradient[0]
    np.testing.assert_allclose(values(model)[path], expected, rtol=1e-5)


def test_clipping_scales_all_gradients_to_one_norm(model):
    optimizer = make_optimizer(OptimizerSettings("sgd", momentum=0.0, global_clipnorm=0.5), 1.0, 0.0, model)
    before, gradient = values(model), gradients(model, 0)
    apply(optimizer, model, gradient)
    norm = np.sqrt(sum(np.sum(np.square(g.astype("float64"))) for g in gradient))
    assert norm > 1
    for (path, value), g in zip(values(model).items(), gradient, strict=True):
        np.testing.assert_allclose(value, before[path] - g * 0.5 / norm, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", DEFAULTS)
def test_accumulated_steps_are_one_update_with_their_mean(model, name):
    steps = [gradients(model, seed) for seed in range(3)]
    start = model.get_weights()
    whole = make_optimizer(OptimizerSettings(name), RATE, 0.1, model)
    means = [np.mean(parts, axis=0, dtype="float64").astype("float32") for parts in zip(*steps, strict=True)]
    apply(whole, model, means)
    expected = values(model)
    model.set_weights(start)
    optimizer = make_optimizer(OptimizerSettings(name, gradient_accumulation_steps=3), RATE, 0.1, model)
    for number, gradient in enumerate(steps):
        apply(optimizer, model, gradient)
        if number < 2:
            assert all(np.array_equal(a, b) for a, b in zip(model.get_weights(), start, strict=True))
    for path, value in values(model).items():
        np.testing.assert_allclose(value, expected[path], rtol=2e-4, atol=1e-6)
    assert int(optimizer.iterations) == 1


@pytest.mark.parametrize("accumulated", [1, 4])
def test_averages_forget_by_the_update(model, accumulated):
    """m·average + (1 − m)·weights once an update, however many steps it takes."""
    settings = OptimizerSettings("sgd", momentum=0.0, ema_momentum=0.9, gradient_accumulation_steps=accumulated)
    optimizer = make_optimizer(settings, RATE, 0.0, model)
    (path, _), *_ = values(model).items()
    kept = 0.9 ** (1 / accumulated)  # at a step
    average = None
    for step in range(3 * accumulated):
        apply(optimizer, model, gradients(model, step))
        weights = values(model)[path]
        # Keras begins with what the first update leaves.
        average = weights if step < accumulated else kept * average + (1 - kept) * weights
    np.testing.assert_allclose(optimizer._model_variables_moving_average[0].numpy(), average, rtol=1e-5, atol=1e-7)


def test_layer_decay_is_a_power_by_part():
    """1 for the classifier, as in timm and BEiT; here a part is a layer."""
    factors = OptimizerSettings(layer_decay=0.5).factors
    assert factors == {
        "stem": 1 / 64,
        "stage_a": 1 / 32,
        "reduction_a": 1 / 16,
        "stage_b": 1 / 8,
        "reduction_b": 1 / 4,
        "stage_c": 1 / 2,
        "predictions": 1,
    }
    assert OptimizerSettings().factors is None
    assert OptimizerSettings(learning_rate_factors={}) == OptimizerSettings()
    assert OptimizerSettings(learning_rate_factors={"stem": 2}).factors == {"stem": 2.0}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"layer_decay": 0}, "layer_decay=0.0 must be a finite number > 0 and ≤ 1"),
        ({"layer_decay": 1.5}, "layer_decay=1.5 must be a finite number > 0 and ≤ 1"),
        ({"learning_rate_factors": {"head": 1}}, "learning_rate_factors='head' must be one of stem"),
        ({"learning_rate_factors": {"stem": "a"}}, r"learning_rate_factors\['stem'\]='a' must be a finite number ≥ 0"),
        ({"learning_rate_factors": ["stem"]}, r"learning_rate_factors=\['stem'\] must map parts to factors"),
        ({"learning_rate_factors": {"stem": 1.0}, "layer_decay": 0.5}, "layer_decay=0.5 gives every part its factor"),
    ],
)
def test_bad_learning_rates_by_part(settings, message):
    with pytest.raises(ValueError, match=message):
        OptimizerSettings(**settings)
