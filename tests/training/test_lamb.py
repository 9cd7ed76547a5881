"""LAMB beside the formulas of its paper in float64, and beside Keras's own where both mean the same."""

import keras
import numpy as np
import pytest

from polynet_keras.training.lamb import Lamb
from polynet_keras.training.making import make_optimizer
from polynet_keras.training.recipes.optimizer import OptimizerSettings
from tests.reference import few_layers


def numpy_lamb(weights, gradients, rate, decay, epsilon):
    """You et al., Algorithm 2; decay and ratio of matrices only."""
    w, m, v = np.float64(weights), 0.0, 0.0
    for step, gradient in enumerate(np.float64(gradients), 1):
        m = 0.9 * m + 0.1 * gradient
        v = 0.999 * v + 0.001 * gradient**2
        update = m / (1 - 0.9**step) / (np.sqrt(v / (1 - 0.999**step)) + epsilon)
        ratio = 1.0
        if w.ndim > 1:
            update = update + decay * w
            ratio = np.linalg.norm(w) / np.linalg.norm(update)
        w = w - rate * ratio * update
    return w


@pytest.mark.parametrize("shape", [(3, 3, 4, 5), (6, 7), (8,)])
@pytest.mark.parametrize("decay", [0.0, 0.5])
@pytest.mark.parametrize("seed", [0, 1])
def test_it_is_the_papers(shape, decay, seed):
    rng = np.random.default_rng(seed)
    weights, gradients = rng.normal(0, 0.1, shape), rng.normal(0, 1, (6, *shape)).astype("float32")
    variable = keras.Variable(weights)
    optimizer = Lamb(0.01, ratio_decay=decay, epsilon=1e-6)
    for gradient in gradients:
        optimizer.apply([keras.ops.convert_to_tensor(gradient)], [variable])
    expected = numpy_lamb(weights.astype("float32"), gradients, 0.01, decay, 1e-6)
    np.testing.assert_allclose(variable, expected, rtol=2e-5, atol=1e-6)
    if not decay and len(shape) > 1:
        kerass = keras.Variable(weights)
        other = keras.optimizers.Lamb(0.01, epsilon=1e-6)
        for gradient in gradients:
            other.apply([keras.ops.convert_to_tensor(gradient)], [kerass])
        np.testing.assert_allclose(variable, kerass, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("weights", [np.zeros((2, 2)), np.ones((2, 2))])
def test_without_a_norm_there_is_no_ratio(weights):
    variable = keras.Variable(weights)
    Lamb(0.1).apply([keras.ops.zeros((2, 2))], [variable])
    np.testing.assert_array_equal(variable, weights)
    Lamb(0.1).apply([keras.ops.ones((2, 2))], [variable])
    assert np.isfinite(variable).all()
    np.testing.assert_allclose(variable, weights - 0.1, rtol=1e-5)


def test_a_recipe_says_which():
    model = few_layers()
    settings = OptimizerSettings("lamb", decay_in_ratio=True, epsilon=1e-6, global_clipnorm=1.0, ema_momentum=0.9)
    optimizer = make_optimizer(settings, 0.005, 0.02, model)
    assert (type(optimizer), optimizer.ratio_decay, optimizer.weight_decay) == (Lamb, 0.02, None)
    assert (optimizer.epsilon, optimizer.global_clipnorm, optimizer.use_ema) == (1e-6, 1.0, True)
    again = Lamb.from_config(optimizer.get_config())
    assert again.ratio_decay == 0.02
    kerass = make_optimizer(OptimizerSettings("lamb"), 0.005, 0.02, model)
    assert (kerass.ratio_decay, kerass.weight_decay) == (None, 0.02)


def test_learning_rates_by_part():
    """The factor multiplies the rate; the ratio is without it."""
    model = few_layers()
    settings = OptimizerSettings("lamb", decay_in_ratio=True, learning_rate_factors={"stem": 0.25})
    optimizer = make_optimizer(settings, 0.01, 0.02, model)
    before = {variable.path: np.array(variable) for variable in model.trainable_variables}
    rng = np.random.default_rng(0)
    gradients = [rng.normal(0, 1, variable.shape).astype("float32") for variable in model.trainable_variables]
    optimizer.apply([keras.ops.convert_to_tensor(gradient) for gradient in gradients], model.trainable_variables)
    for variable, gradient in zip(model.trainable_variables, gradients, strict=True):
        rate = 0.0025 if variable.path.rpartition("/")[0].rpartition("/")[2].startswith("stem_") else 0.01
        expected = numpy_lamb(before[variable.path], [gradient], rate, 0.02, 1e-7)
        np.testing.assert_allclose(variable, expected, rtol=2e-5, atol=1e-6)


def test_what_is_refused():
    with pytest.raises(ValueError, match="weight_decay=0.1 would be beside .* and ratio_decay=0.2"):
        Lamb(weight_decay=0.1, ratio_decay=0.2)
    with pytest.raises(ValueError, match="ratio_decay=-1 must be a finite number ≥ 0"):
        Lamb(ratio_decay=-1)
