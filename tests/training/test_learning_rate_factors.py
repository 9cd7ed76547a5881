"""Learning rates by part, against Keras's optimizers of one part each, float64 NumPy and PyTorch's parameter groups."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from polynet_keras.training.insertion import insert_optimizer
from polynet_keras.training.insertion_plan import plan_insertion
from polynet_keras.training.lamb import Lamb
from polynet_keras.training.learning_rate_factors import SGD, AdamW
from polynet_keras.training.making import make_optimizer, make_schedule
from polynet_keras.training.optimizers import RMSprop
from polynet_keras.training.recipes.optimizer import DEFAULTS, OptimizerSettings
from polynet_keras.training.recipes.schedule import ScheduleSettings

LAYERS = {"stem_conv1": "stem", "stage_b_01_f_conv": "stage_b", "dense": None, "predictions": "predictions"}
FACTORS = {"stem": 0.1, "stage_b": 0.0, "predictions": 2.5}
KERAS = {
    "rmsprop": keras.optimizers.RMSprop,
    "sgd": keras.optimizers.SGD,
    "adamw": keras.optimizers.AdamW,
    "lamb": keras.optimizers.Lamb,
}
STEPS = 6


@pytest.fixture
def model():
    keras.utils.set_random_seed(3)
    x = inputs = keras.Input((3,))
    for name in LAYERS:
        x = keras.layers.Dense(3, name=name, bias_initializer="ones")(x)
    return keras.Model(inputs, x)


def gradients(model, seed):
    """For each step, of sizes over three decades."""
    rng = np.random.default_rng(seed)
    return [
        [(rng.normal(size=v.shape) * 10.0 ** rng.uniform(-2, 1)).astype("float32") for v in model.trainable_variables]
        for _ in range(STEPS)
    ]


def run(optimizer, variables, steps):
    for step in steps:
        optimizer.apply([tf.constant(gradient, "float32") for gradient in step], variables)


def factor_of(layer):
    return FACTORS.get(LAYERS[layer.name], 1.0)


def values(variables):
    return [keras.ops.convert_to_numpy(variable) for variable in variables]


@pytest.mark.parametrize(
    ("decay", "accumulated", "seed"),
    [
        (0.3, 3, 0),
        *[pytest.param(*one, marks=pytest.mark.slow) for one in ((0.3, 3, 1), (0.3, 1, 0), (0.0, 1, 1), (0.0, 3, 0))],
    ],
)
@pytest.mark.parametrize("name", DEFAULTS)
def test_a_part_is_trained_as_by_an_optimizer_of_its_rate(model, name, decay, accumulated, seed):
    """Keras's optimizers, one for each layer: all clip by the norm of all gradients, which is done for them."""
    start, steps, norms = model.get_weights(), gradients(model, seed), []
    for first in range(0, STEPS, accumulated):
        means = [np.mean(parts, 0, "float64") for parts in zip(*steps[first : first + accumulated], strict=True)]
        norms.append(np.sqrt(sum(np.sum(np.square(mean)) for mean in means)))
    clipnorm = float(np.median(norms))
    schedule = ScheduleSettings("exponential", 0.05, 0.25, decay_epochs=4, decay_factor=0.5)
    settings = OptimizerSettings(
        name,
        learning_rate_factors=FACTORS,
        gradient_accumulation_steps=accumulated,
        ema_momentum=0.8,
        global_clipnorm=clipnorm,
    )
    optimizer = make_optimizer(settings, make_schedule(schedule, STEPS, 1), decay, model)
    run(optimizer, model.trainable_variables, steps)
    found = values(model.trainable_variables)
    averages = values(optimizer._model_variables_moving_average)

    model.set_weights(start)
    for number, layer in enumerate(model.layers[1:]):
        arguments = optimizer.get_config() | {"global_clipnorm": None}
        for ours in ("learning_rate_factors", "epsilon_inside_root", "initial_mean_square", "ratio_decay"):
            arguments.pop(ours, None)
        rate = make_schedule(schedule, STEPS, 1)
        arguments["learning_rate"] = Scaled(rate, factor_of(layer))
        reference = KERAS[name](**arguments)
        reference.exclude_from_weight_decay([layer.bias])
        mine = slice(2 * number, 2 * number + 2)
        for place, step in enumerate(steps):
            norm = norms[place // accumulated]
            clipped = [gradient * min(1.0, clipnorm / norm) for gradient in step[mine]]
            run(reference, layer.trainable_variables, [clipped])
        for one, expected, before in zip(found[mine], values(layer.trainable_variables), start[mine], strict=True):
            np.testing.assert_allclose(one, expected, rtol=2e-5, atol=2e-6, err_msg=layer.name)
            assert np.array_equal(one, before) == (factor_of(layer) == 0)
        for one, expected in zip(averages[mine], values(reference._model_variables_moving_average), strict=True):
            np.testing.assert_allclose(one, expected, rtol=2e-5, atol=2e-6, err_msg=layer.name)


class Scaled(keras.optimizers.schedules.LearningRateSchedule):
    def __init__(self, schedule, factor):
        super().__init__()
        self.schedule, self.factor = schedule, factor

    def __call__(self, step):
        return self.schedule(step) * self.factor


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_lambs_ratio_is_without_the_factor(model, seed):
    """The paper's update in float64: the factor multiplies it, and the decay that Keras has beside it."""
    rate, decay = 0.05, 0.2
    steps, expected = gradients(model, seed), [w.astype("float64") for w in model.get_weights()]
    optimizer = make_optimizer(OptimizerSettings("lamb", learning_rate_factors=FACTORS), rate, decay, model)
    run(optimizer, model.trainable_variables, steps)
    factors = [factor_of(layer) for layer in model.layers[1:] for _ in range(2)]
    m = [np.zeros_like(w) for w in expected]
    v = [np.zeros_like(w) for w in expected]
    for t, step in enumerate(steps, 1):
        for i, g in enumerate(gradient.astype("float64") for gradient in step):
            m[i], v[i] = 0.9 * m[i] + 0.1 * g, 0.999 * v[i] + 0.001 * g**2
            if expected[i].ndim > 1:
                expected[i] = expected[i] * (1 - rate * factors[i] * decay)
            update = m[i] / (1 - 0.9**t) / (np.sqrt(v[i] / (1 - 0.999**t)) + 1e-7)
            ratio = np.linalg.norm(expected[i]) / np.linalg.norm(update)
            expected[i] = expected[i] - rate * factors[i] * ratio * update
    for found, one in zip(values(model.trainable_variables), expected, strict=True):
        np.testing.assert_allclose(found, one, rtol=1e-4, atol=1e-5)


@pytest.mark.slow  # PyTorch takes seconds to import
@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_equals_pytorchs_parameter_groups(model, name, seed):
    """AdamW with decay; PyTorch's decay of SGD is part of the gradient, and is left out."""
    torch = pytest.importorskip("torch", reason="PyTorch's optimizers are the reference")
    rate, decay, epsilon = 0.02, 0.3 if name == "adamw" else 0.0, 1e-8
    classes = {
        "sgd": (lambda groups: torch.optim.SGD(groups, rate, momentum=0.9, nesterov=True)),
        "adamw": (lambda groups: torch.optim.AdamW(groups, rate, eps=epsilon)),
    }
    groups, theirs = [], []
    for layer in model.layers[1:]:
        for weight in layer.get_weights():
            theirs.append(torch.nn.Parameter(torch.tensor(weight, dtype=torch.float64)))
            own_decay = decay if weight.ndim > 1 else 0.0
            groups.append({"params": [theirs[-1]], "lr": rate * factor_of(layer), "weight_decay": own_decay})
    reference, steps = classes[name](groups), gradients(model, seed)
    extra = {} if name == "sgd" else {"epsilon": epsilon}
    settings = OptimizerSettings(name, learning_rate_factors=FACTORS, **extra)
    run(make_optimizer(settings, rate, decay, model), model.trainable_variables, steps)
    for step in steps:
        for parameter, gradient in zip(theirs, step, strict=True):
            parameter.grad = torch.tensor(gradient, dtype=torch.float64)
        reference.step()
    for found, parameter in zip(values(model.trainable_variables), theirs, strict=True):
        np.testing.assert_allclose(found, parameter.detach().numpy(), rtol=5e-4, atol=1e-5)


@pytest.mark.parametrize("ours", [SGD, AdamW, Lamb])
def test_without_factors_it_is_kerass_to_the_bit(model, ours):
    start, steps = model.get_weights(), gradients(model, 4)
    run(ours(0.05, weight_decay=0.1), model.trainable_variables, steps)
    found = model.get_weights()
    model.set_weights(start)
    theirs = getattr(keras.optimizers, ours.__name__)(0.05, weight_decay=0.1)
    run(theirs, model.trainable_variables, steps)
    assert all(map(np.array_equal, found, model.get_weights()))
    names = [variable.name for variable in theirs.variables]
    assert [variable.name for variable in ours(0.05).variables] == names[:2]
    assert ours(0.05, name="mine").get_config() == {
        **getattr(keras.optimizers, ours.__name__)(0.05, name="mine").get_config(),
        "learning_rate_factors": None,
        **({"ratio_decay": None} if ours is Lamb else {}),
    }


def test_an_optimizer_that_scales_the_loss_leaves_out_what_overflows(model):
    inner = SGD(0.1, weight_decay=0.5, learning_rate_factors=FACTORS)
    optimizer = keras.optimizers.LossScaleOptimizer(inner, initial_scale=8.0)
    start, (gradient, *_) = model.get_weights(), gradients(model, 5)
    run(optimizer, model.trainable_variables, [[g * np.float32("inf") for g in gradient]])
    assert all(map(np.array_equal, model.get_weights(), start))
    run(optimizer, model.trainable_variables, [[g * 4 for g in gradient]])  # the scale is halved
    for layer, kernel, g in zip(model.layers[1:], start[::2], gradient[::2], strict=True):
        rate = 0.1 * factor_of(layer)
        np.testing.assert_allclose(layer.get_weights()[0], kernel * (1 - rate * 0.5) - rate * g, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_a_file_keeps_the_factors(model, tmp_path):
    model.compile(AdamW(0.05, weight_decay=0.1, learning_rate_factors=FACTORS), "mse")
    x = np.random.default_rng(0).normal(size=(8, 3)).astype("float32")
    model.train_on_batch(x, x)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert loaded.optimizer.learning_rate_factors == FACTORS
    for one in (model, loaded):
        one.train_on_batch(x, x)
    assert all(map(np.array_equal, model.get_weights(), loaded.get_weights()))


@pytest.mark.parametrize("ours", [SGD, AdamW, Lamb, RMSprop])
def test_keras_optimizer_of_an_older_file_is_carried(model, ours):
    source = keras.models.clone_model(model)
    source.compile(getattr(keras.optimizers, ours.__name__)(0.1), "mse")
    model.compile(ours(0.1, learning_rate_factors=FACTORS), "mse")
    same = "1 x [ir] | 1 x [ir] | 1 x [ir]"
    assert insert_optimizer(source, model, plan_insertion(same, same)) == len(
        [v for v in source.optimizer.variables if len(v.shape)]
    )


@pytest.mark.parametrize("ours", [SGD, AdamW, Lamb])
def test_mistakes(ours):
    with pytest.raises(ValueError, match="learning_rate_factors='head' must be one of stem"):
        ours(learning_rate_factors={"head": 1.0})
    with pytest.raises(ValueError, match=r"learning_rate_factors\['stem'\]=-1.0 must be a finite number ≥ 0"):
        ours(learning_rate_factors={"stem": -1.0})
    with pytest.raises(ValueError, match=r"learning_rate_factors=\['stem'\] must map parts to factors"):
        ours(learning_rate_factors=["stem"])
    with pytest.raises(ValueError, match="none of its variables is trained here"):
        ours(learning_rate_factors={"stem": 0.1}).build([keras.Variable([1.0])])
