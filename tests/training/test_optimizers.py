"""RMSprop against float64 NumPy, Keras's RMSprop and PyTorch's; its fused operations, state and strategies."""

import subprocess
import sys

import keras
import numpy as np
import pytest

from polynet_keras.training import optimizers
from polynet_keras.training.lamb import Lamb
from polynet_keras.training.optimizers import RMSprop

on_tensorflow = pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="TensorFlow's operations")
STEPS = 20
SHAPES = {"kernel": (3, 2, 4, 5), "bias": (5,), "gain": (5,), "scalar": ()}
DEFAULTS = {"learning_rate": 0.05, "rho": 0.9, "momentum": 0.0, "epsilon": 1e-3, "centered": False}

plain = [
    # The fast tests have half of the combinations, and with it all those of any three settings.
    pytest.param(
        {"momentum": momentum, "centered": centered, "epsilon_inside_root": inside, "initial_mean_square": initial},
        marks=[pytest.mark.slow] * ((momentum > 0) ^ centered ^ inside ^ (initial > 0)),
    )
    for momentum in (0.0, 0.9)
    for centered in (False, True)
    for inside in (True, False)
    for initial in (0.0, 1.0)
]
extras = [
    {"weight_decay": 0.1},
    {"clipnorm": 0.8},
    {"clipvalue": 0.3},
    {"global_clipnorm": 1.5},
    {"loss_scale_factor": 64.0},
    {"gradient_accumulation_steps": 4},
    {"use_ema": True, "ema_momentum": 0.8},
    {"use_ema": True, "ema_momentum": 0.8, "ema_overwrite_frequency": 7},
]


def initial_values(seed=0):
    rng = np.random.default_rng(seed)
    return {name: rng.normal(size=shape) for name, shape in SHAPES.items()}


def gradients(seed=1):
    """For each step, of sizes over four decades, some of them zero."""
    rng = np.random.default_rng(seed)
    return [
        {
            name: rng.normal(size=shape) * 10.0 ** rng.uniform(-3, 1) * (rng.random(shape) > 0.1)
            for name, shape in SHAPES.items()
        }
        for _ in range(STEPS)
    ]


def schedule():
    return keras.optimizers.schedules.PiecewiseConstantDecay([5, 12], [0.05, 0.01, 0.1])


class Reference:
    """The docstring's formulas in float64, and Keras's rules around them."""

    def __init__(self, learning_rate, rho, momentum, epsilon, centered, **more):
        self.rate, self.rho, self.momentum, self.epsilon, self.centered = (
            learning_rate,
            rho,
            momentum,
            epsilon,
            centered,
        )
        self.more = more
        self.values = initial_values()
        start = more.get("initial_mean_square", 0.0)
        self.s = {name: np.full(shape, start) for name, shape in SHAPES.items()}
        self.a = {name: np.zeros(shape) for name, shape in SHAPES.items()}
        self.v = {name: np.zeros(shape) for name, shape in SHAPES.items()}
        self.average = {name: np.zeros(shape) for name, shape in SHAPES.items()}
        self.accumulated = []
        self.step = 0

    def apply(self, gradients):
        every = self.more.get("gradient_accumulation_steps")
        if every:
            self.accumulated.append(gradients)
            gradients = {name: np.mean([g[name] for g in self.accumulated], axis=0) for name in SHAPES}
            if len(self.accumulated) == every:
                self.accumulated = []
                self._update(gradients)
            self.step += 1
            return
        self._update(gradients)
        self.step += 1
        if self.more.get("use_ema"):
            m = self.more["ema_momentum"]
            # Keras's average starts as the first value.
            share = 0.0 if self.step == 1 else m
            self.average = {n: share * self.average[n] + (1 - share) * self.values[n] for n in SHAPES}
            every = self.more.get("ema_overwrite_frequency")
            if every and self.step % every == 0:
                self.values = {name: value.copy() for name, value in self.average.items()}

    def _update(self, gradients):
        norm = lambda gs: np.sqrt(sum((g**2).sum() for g in gs))  # noqa: E731
        limit = self.more.get("global_clipnorm")
        total = norm(gradients.values())
        rate = self.rate(self.step) if callable(self.rate) else self.rate
        for name, g in gradients.items():
            if limit and total > limit:
                g = g * limit / total
            if "clipnorm" in self.more and norm([g]) > self.more["clipnorm"]:
                g = g * self.more["clipnorm"] / norm([g])
            if "clipvalue" in self.more:
                g = np.clip(g, -self.more["clipvalue"], self.more["clipvalue"])
            if "weight_decay" in self.more and name not in ("bias", "gain"):
                self.values[name] = self.values[name] * (1 - self.more["weight_decay"] * rate)
            self.s[name] = self.rho * self.s[name] + (1 - self.rho) * g**2
            if self.centered:
                self.a[name] = self.rho * self.a[name] + (1 - self.rho) * g
            variance = self.s[name] - self.a[name] ** 2
            if self.more.get("epsilon_inside_root", True):
                d = np.sqrt(variance + self.epsilon)
            else:
                d = np.sqrt(np.maximum(variance, 0)) + self.epsilon
            self.v[name] = self.momentum * self.v[name] + rate * g / d
            self.values[name] = self.values[name] - self.v[name]


def variables(dtype="float32"):
    return [keras.Variable(value.astype(dtype), dtype=dtype, name=name) for name, value in initial_values().items()]


def tensors(step, dtype="float32", scale=1.0):
    return [keras.ops.convert_to_tensor((value * scale).astype(dtype)) for value in step.values()]


def run(optimizer, weights, steps, scale=1.0, compiled=False):
    apply = optimizer.apply
    if compiled:
        import tensorflow as tf

        apply = tf.function(lambda *grads: optimizer.apply(list(grads), weights), autograph=False)
        optimizer.build(weights)
    for step in steps:
        grads = tensors(step, scale=scale)
        apply(*grads) if compiled else apply(grads, weights)


def assert_close(weights, expected, tolerance=2e-5):
    for variable, (name, value) in zip(weights, expected.items(), strict=True):
        found = keras.ops.convert_to_numpy(variable)
        np.testing.assert_allclose(found, value, rtol=tolerance, atol=tolerance, err_msg=name)


compilations = pytest.mark.parametrize(
    "compiled", [False, pytest.param(True, marks=on_tensorflow)], ids=["eager", "graph"]
)


@compilations
@pytest.mark.parametrize("options", [*plain, *extras], ids=str)
def test_equals_numpy(options, compiled):
    settings = {**DEFAULTS, **options}
    optimizer, reference, weights = RMSprop(**settings), Reference(**settings), variables()
    if "weight_decay" in options:
        optimizer.exclude_from_weight_decay(var_names=["bias", "gain"])
    run(optimizer, weights, gradients(), options.get("loss_scale_factor", 1.0), compiled)
    for step in gradients():
        reference.apply(step)
    assert_close(weights, reference.values)
    if options.get("use_ema"):
        optimizer.finalize_variable_values(weights)
        assert_close(weights, reference.average)


@compilations
@pytest.mark.parametrize("inside", [True, False])
def test_follows_a_schedule(inside, compiled):
    numpy_schedule = lambda step: 0.05 if step <= 5 else 0.01 if step <= 12 else 0.1  # noqa: E731
    weights = variables()
    run(RMSprop(schedule(), epsilon=1e-3, epsilon_inside_root=inside), weights, gradients(), compiled=compiled)
    reference = Reference(**{**DEFAULTS, "learning_rate": numpy_schedule}, epsilon_inside_root=inside)
    for step in gradients():
        reference.apply(step)
    assert_close(weights, reference.values)


LAYERS = {"kernel": "stem_conv1", "bias": "stage_b_02_f_branch1_conv1", "gain": "reduction_a_conv1", "scalar": "my_own"}
FACTORS = {"stem": 2.0, "stage_b": 0.0, "stage_a": 7.0}


@compilations
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"momentum": 0.9, "centered": True},
        {"epsilon_inside_root": False},
        {"epsilon_inside_root": False, "momentum": 0.9},
    ],
    ids=str,
)
def test_each_part_has_its_factor_on_the_learning_rate(options, compiled):
    settings = {**DEFAULTS, **options}
    weights = []
    for name, value in initial_values().items():
        with keras.name_scope(LAYERS[name]):
            weights.append(keras.Variable(value.astype("float32"), name=name))
    optimizer = RMSprop(**settings, learning_rate_factors=FACTORS)
    run(RMSprop.from_config(optimizer.get_config()), weights, gradients(), compiled=compiled)
    expected = {}
    for name, factor in zip(SHAPES, (2.0, 0.0, 1.0, 1.0), strict=True):
        reference = Reference(**{**settings, "learning_rate": factor * settings["learning_rate"]})
        for step in gradients():
            reference.apply(step)
        expected[name] = reference.values[name]
    assert_close(weights, expected)
    np.testing.assert_array_equal(weights[1], initial_values()["bias"].astype("float32"))


@compilations
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_a_variance_that_rounding_makes_negative_is_zero(compiled, momentum):
    """Of gradients that stay the same: their mean square less their squared mean is near 0, and in float32 below it."""
    gradient = np.random.default_rng(0).normal(size=1000) * 10
    start = np.zeros(1000, "float32")
    settings = {"learning_rate": 0.01, "rho": 0.7, "epsilon": 1.0, "centered": True, "momentum": momentum}
    weights = [keras.Variable(start)]
    run(RMSprop(**settings, epsilon_inside_root=False), weights, 60 * [{"x": gradient}], compiled=compiled)
    w, s, a, v = (np.zeros(1000) for _ in range(4))
    for _ in range(60):
        s, a = 0.7 * s + 0.3 * gradient**2, 0.7 * a + 0.3 * gradient
        v = momentum * v + 0.01 * gradient / (np.sqrt(np.maximum(s - a**2, 0)) + 1)
        w = w - v
    # Of a mean square of up to 1000, float32 knows the variance up to 1e-4, and its root up to 1e-2.
    np.testing.assert_allclose(keras.ops.convert_to_numpy(weights[0]), w, rtol=2e-2)


@pytest.mark.parametrize("options", [{}, {"momentum": 0.9}, {"centered": True}, {"momentum": 0.9, "centered": True}])
def test_equals_keras_and_takes_its_state(options):
    settings = {"learning_rate": 0.05, "epsilon": 1e-3, "name": "rmsprop", **options}
    theirs, ours = keras.optimizers.RMSprop(**settings), RMSprop(**settings)
    a, b = variables(), variables()
    theirs.build(a)
    ours.build(b)
    run(theirs, a, gradients()[:10])
    assert [v.path for v in ours.variables] == [v.path for v in theirs.variables]
    state = {}
    theirs.save_own_variables(state)
    ours.load_own_variables(state)
    for source, target in zip(a, b, strict=True):
        target.assign(source)
    run(theirs, a, gradients()[10:])
    run(ours, b, gradients()[10:])
    assert_close(b, {v.name: keras.ops.convert_to_numpy(v) for v in a})


@pytest.mark.slow  # PyTorch takes seconds to import
@pytest.mark.parametrize("options", [{}, {"momentum": 0.9}, {"centered": True}])
def test_outside_the_root_equals_pytorch(options):
    torch = pytest.importorskip("torch", reason="PyTorch's optimizer is the reference")
    weights = variables()
    run(RMSprop(0.05, rho=0.9, epsilon=1e-3, epsilon_inside_root=False, **options), weights, gradients())
    theirs = [torch.nn.Parameter(torch.tensor(np.float32(value))) for value in initial_values().values()]
    optimizer = torch.optim.RMSprop(theirs, lr=0.05, alpha=0.9, eps=1e-3, **options)
    for step in gradients():
        for parameter, gradient in zip(theirs, step.values(), strict=True):
            parameter.grad = torch.tensor(np.float32(gradient))
        optimizer.step()
    assert_close(weights, dict(zip(SHAPES, (p.detach().cpu().numpy() for p in theirs), strict=True)))


@pytest.mark.parametrize("inside", [True, False])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_low_precision_gradients_of_float32_variables(dtype, inside):
    options = {**DEFAULTS, "epsilon_inside_root": inside}
    weights, reference = variables(), Reference(**options)
    optimizer = RMSprop(**options)
    for step in gradients():
        cast = [keras.ops.cast(keras.ops.convert_to_tensor(g.astype("float32")), dtype) for g in step.values()]
        optimizer.apply(cast, weights)
        rounded = [keras.ops.convert_to_numpy(keras.ops.cast(g, "float32")).astype("float64") for g in cast]
        reference.apply(dict(zip(step, rounded, strict=True)))
    assert_close(weights, reference.values)


def small_model():
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((7,)), keras.layers.Dense(5, "relu"), keras.layers.Dense(3)])
    model.compile(RMSprop(0.01, momentum=0.9, epsilon_inside_root=False, initial_mean_square=1.0), "mse")
    return model


def data(seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(16, 7)).astype("float32"), rng.normal(size=(16, 3)).astype("float32")


def test_save_load_and_resume(tmp_path):
    model = small_model()
    model.fit(*data(), epochs=2, verbose=0, shuffle=False)
    model.save(tmp_path / "model.keras")
    model.fit(*data(1), epochs=2, verbose=0, shuffle=False)
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert isinstance(loaded.optimizer, RMSprop)
    assert loaded.optimizer.get_config() == model.optimizer.get_config()
    loaded.fit(*data(1), epochs=2, verbose=0, shuffle=False)
    for a, b in zip(model.get_weights(), loaded.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-7)


@on_tensorflow
def test_loss_scaling_skips_steps_that_overflow():
    """Keras's dynamic loss scaling around it, as `compile` puts it under the policy mixed_float16."""
    weights = variables()
    before = [keras.ops.convert_to_numpy(v) for v in weights]
    optimizer = keras.optimizers.LossScaleOptimizer(RMSprop(**DEFAULTS), initial_scale=2.0**10)
    optimizer.build(weights)
    overflow = {name: np.full(shape, np.inf) for name, shape in SHAPES.items()}
    run(optimizer, weights, [overflow], compiled=True)
    for variable, value in zip(weights, before, strict=True):
        np.testing.assert_array_equal(keras.ops.convert_to_numpy(variable), value)
    assert float(optimizer.dynamic_scale) == 2.0**9
    for step in gradients():
        run(optimizer, weights, [step], scale=float(optimizer.dynamic_scale))
    reference = Reference(**DEFAULTS)
    for step in gradients():
        reference.apply(step)
    assert_close(weights, reference.values)


def test_config_is_kerass_and_three_more():
    theirs = keras.optimizers.RMSprop(0.1, momentum=0.5, clipnorm=1.0, name="mine").get_config()
    ours = RMSprop(0.1, momentum=0.5, clipnorm=1.0, name="mine").get_config()
    more = {"epsilon_inside_root": True, "initial_mean_square": 0.0, "learning_rate_factors": None}
    assert ours == {**theirs, **more}
    assert RMSprop.from_config(ours).get_config() == ours


@pytest.mark.parametrize(
    ("argument", "value", "accepted"),
    [
        ("rho", -0.1, "≥ 0"),
        ("rho", 1.5, "≥ 0 and ≤ 1"),
        ("rho", True, "≥ 0"),
        ("momentum", "0.9", "≥ 0"),
        ("momentum", 1.01, "≥ 0 and ≤ 1"),
        ("learning_rate_factors", {"tail": 1.0}, "learning_rate_factors"),
        ("epsilon", float("nan"), "≥ 0"),
        ("epsilon", float("inf"), "finite"),
        ("centered", 1, "True or False"),
        ("epsilon_inside_root", None, "True or False"),
        ("initial_mean_square", 0.5, "0 (Keras) or 1"),
        ("initial_mean_square", True, "0 (Keras) or 1"),
    ],
)
def test_bad_arguments(argument, value, accepted):
    with pytest.raises(ValueError, match=argument) as error:
        RMSprop(**{argument: value})
    assert repr(next(iter(value)) if isinstance(value, dict) else value) in str(error.value)
    assert accepted in str(error.value)


@pytest.mark.parametrize("options", [{}, {"momentum": 0.9}, {"epsilon_inside_root": False, "momentum": 0.9}], ids=str)
def test_variables_of_low_precision_stay_so(options):
    weights = variables("bfloat16")
    before = [keras.ops.convert_to_numpy(keras.ops.cast(variable, "float32")) for variable in weights]
    optimizer = RMSprop(0.1, epsilon=1e-3, **options)
    optimizer.apply([keras.ops.ones(variable.shape, "bfloat16") for variable in weights], weights)
    for variable, value in zip(weights, before, strict=True):
        assert keras.backend.standardize_dtype(variable.dtype) == "bfloat16"
        found = keras.ops.convert_to_numpy(keras.ops.cast(variable, "float32"))
        # The first step is the learning rate over the root of a tenth.
        np.testing.assert_allclose(value - found, 0.1 / np.sqrt(0.1), atol=0.03)


@on_tensorflow
@pytest.mark.parametrize("options", [{}, {"epsilon_inside_root": False}], ids=str)
def test_on_one_device_no_strategy_is_asked(options, monkeypatch):
    """Keras asks it for each variable, which is three operations each."""
    import tensorflow as tf

    weights = variables()
    optimizer = RMSprop(momentum=0.0, **options)
    optimizer.build(weights)

    def refuse(*arguments, **options):
        raise AssertionError("Keras's own update was called")

    monkeypatch.setattr(type(tf.distribute.get_strategy().extended), "_reduce_to", refuse)
    monkeypatch.setattr(keras.optimizers.RMSprop, "_backend_update_step", refuse)
    optimizer.apply(tensors(gradients()[0]), weights)


@on_tensorflow
@pytest.mark.parametrize("options", [{}, {"momentum": 0.9}, {"epsilon_inside_root": False}], ids=str)
def test_constants_are_made_once_for_all_variables(options):
    """Two or three numbers for each update: for thousands of variables they would cost seconds."""
    weights = [keras.Variable(np.zeros(3, "float32")) for _ in range(5)]
    constants = [operations(weights[:count], **options).count("Const") for count in (1, 5)]
    assert constants[0] == constants[1]


def operations(weights=None, **options):
    import tensorflow as tf

    weights = weights or variables()
    optimizer = RMSprop(**options)
    optimizer.build(weights)
    function = tf.function(lambda *grads: optimizer.apply(list(grads), weights), autograph=False)
    grads = [tf.zeros(variable.shape, variable.dtype) for variable in weights]
    return [op.type for op in function.get_concrete_function(*grads).graph.get_operations()]


@on_tensorflow
@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (RMSprop, {}),
        (RMSprop, {"momentum": 0.9}),
        (RMSprop, {"centered": True}),
        (RMSprop, {"epsilon_inside_root": False}),
        (RMSprop, {"epsilon_inside_root": False, "momentum": 0.9}),
        (RMSprop, {"gradient_accumulation_steps": 2}),
        (Lamb, {}),
    ],
)
def test_xla_compiles_the_update(kind, options):
    """As Keras has it do if there is a GPU. XLA lacks some of TensorFlow's operations."""
    results = []
    for jit_compile in (False, True):
        keras.utils.set_random_seed(0)
        model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(5, "relu"), keras.layers.Dense(3, "softmax")])
        model.compile(kind(0.01, **options), "sparse_categorical_crossentropy", jit_compile=jit_compile)
        for _ in range(3):
            model.train_on_batch(np.random.default_rng(0).normal(size=(8, 6)), np.arange(8) % 3)
        results.append(np.concatenate([np.ravel(value) for value in model.get_weights()]))
    np.testing.assert_allclose(*results, rtol=1e-4, atol=1e-5)


@on_tensorflow
def test_one_operation_a_variable():
    assert operations().count("ResourceApplyRMSProp") == len(SHAPES)
    assert operations(momentum=0.9).count("ResourceApplyRMSProp") == len(SHAPES)
    assert operations(centered=True).count("ResourceApplyCenteredRMSProp") == len(SHAPES)
    outside = operations(epsilon_inside_root=False)
    assert outside.count("ResourceApplyAdagradV2") == outside.count("ResourceApplyGradientDescent") == len(SHAPES)
    for found in (operations(), operations(momentum=0.9), operations(centered=True), outside):
        assert "Sqrt" not in found
        assert "Rsqrt" not in found


@on_tensorflow
def test_a_momentum_that_is_not_there_takes_no_memory():
    weights = [keras.Variable(np.zeros((50, 50), "float32")) for _ in range(20)]
    optimizer = RMSprop()
    optimizer.build(weights)
    assert len(optimizer._buffers._variables) == 1
    assert len(optimizer.variables) == 20 + 2  # and iterations, learning rate


@on_tensorflow
@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, len(set(SHAPES.values()))),
        ({"centered": True}, len(set(SHAPES.values()))),
        ({"momentum": 0.9}, 0),
        ({"epsilon_inside_root": False}, 0),
        ({"momentum": 0.9, "epsilon_inside_root": False}, 0),
    ],
    ids=str,
)
def test_only_a_fused_update_without_momentum_has_buffers(options, expected):
    optimizer = RMSprop(**options)
    optimizer.build(variables())
    assert len(optimizer._buffers._variables) == expected


@on_tensorflow
@compilations
def test_a_nan_of_one_step_does_not_outlive_it(compiled):
    optimizer, weights = RMSprop(**DEFAULTS), variables()
    optimizer.build(weights)
    before = [keras.ops.convert_to_numpy(v) for v in (*weights, *optimizer.variables)]
    broken = {name: np.full(shape, np.nan) for name, shape in SHAPES.items()}
    run(optimizer, weights, [broken], compiled=compiled)
    assert np.isnan(keras.ops.convert_to_numpy(weights[0])).all()
    for variable, value in zip((*weights, *optimizer.variables), before, strict=True):
        variable.assign(value)
    run(optimizer, weights, gradients(), compiled=compiled)
    reference = Reference(**DEFAULTS)
    for step in gradients():
        reference.apply(step)
    assert_close(weights, reference.values)


def test_built_inside_the_trace_of_a_plain_model():
    settings = {"learning_rate": 0.01, "epsilon": 1e-3}
    weights = {}
    for initial in (0.0, 1.0):
        keras.utils.set_random_seed(0)
        model = keras.Sequential([keras.Input((7,)), keras.layers.Dense(3, use_bias=False)])
        model.compile(RMSprop(**settings, initial_mean_square=initial), "mse")
        (start,) = model.get_weights()
        x, y = data()
        model.fit(x, y, batch_size=16, epochs=5, verbose=0, shuffle=False)
        w, s = start.astype("float64"), np.full(start.shape, initial)
        for _ in range(5):
            g = 2 * x.T @ (x @ w - y) / y.size
            s = 0.9 * s + 0.1 * g**2
            w = w - 0.01 * g / np.sqrt(s + 1e-3)
        np.testing.assert_allclose(model.get_weights()[0], w, rtol=1e-4, atol=1e-5)
        weights[initial] = w
    assert np.abs(weights[0.0] - weights[1.0]).max() > 1e-3


@on_tensorflow
def test_sparse_gradients():
    import tensorflow as tf

    outside = keras.Variable(np.ones((6, 3), "float32"))
    RMSprop(0.1, epsilon_inside_root=False, momentum=0.5).apply(
        [tf.IndexedSlices(tf.ones((1, 3)), tf.constant([2]), tf.constant([6, 3]))], [outside]
    )
    changed = np.abs(keras.ops.convert_to_numpy(outside) - 1).max(axis=1) > 0
    np.testing.assert_array_equal(changed, [False, False, True, False, False, False])

    theirs, ours = keras.optimizers.RMSprop(0.1), RMSprop(0.1)
    a, b = (keras.Variable(np.ones((6, 3), "float32")) for _ in range(2))
    for _ in range(3):
        for optimizer, variable in ((theirs, a), (ours, b)):
            slices = tf.IndexedSlices(tf.constant([[1.0, 2, 3], [4, 5, 6]]), tf.constant([1, 4]), tf.constant([6, 3]))
            optimizer.apply([slices], [variable])
    np.testing.assert_allclose(keras.ops.convert_to_numpy(b), keras.ops.convert_to_numpy(a), rtol=1e-6)


STRATEGIES = """
import sys
import numpy as np
import tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
import keras
from polynet_keras.training.optimizers import RMSprop

rng = np.random.default_rng(0)
x, y = rng.normal(size=(8, 6)).astype("float32"), rng.normal(size=(8, 2)).astype("float32")
strategies = {
    "none": None,
    "one device": tf.distribute.OneDeviceStrategy("CPU:0"),
    "mirrored": tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]),
    "multi-worker": tf.distribute.MultiWorkerMirroredStrategy(),
}
options = [
    {}, {"momentum": 0.9}, {"centered": True}, {"epsilon_inside_root": False}, {"initial_mean_square": 1.0},
    {"weight_decay": 0.1}, {"gradient_accumulation_steps": 2}, {"use_ema": True},
]
for option in options:
    found = {}
    for name, strategy in strategies.items():
        if "gradient_accumulation_steps" in option and name in ("mirrored", "multi-worker"):
            continue  # Keras updates inside a tf.cond, where replicas cannot meet
        with strategy.scope() if strategy else tf.init_scope():
            keras.utils.set_random_seed(0)
            model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(4, "tanh"), keras.layers.Dense(2)])
            optimizer = RMSprop(0.05, **option)
            optimizer.build(model.trainable_variables)

        def step(x, y):
            with tf.GradientTape() as tape:
                loss = tf.reduce_sum((model(x) - y) ** 2) / 8
            optimizer.apply(tape.gradient(loss, model.trainable_variables), model.trainable_variables)

        @tf.function
        def train(x, y):
            if strategy is None:
                return step(x, y)
            count = strategy.num_replicas_in_sync
            def part(values):
                return strategy.experimental_distribute_values_from_function(
                    lambda context: tf.split(values, count)[context.replica_id_in_sync_group])
            strategy.run(step, args=(part(x), part(y)))

        for _ in range(6):
            train(x, y)
        found[name] = model.get_weights()
    for name, weights in found.items():
        for a, b in zip(found["none"], weights):
            np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-6, err_msg=f"{option} {name}")
print("all equal")
"""


@pytest.mark.slow
@on_tensorflow
def test_strategies():
    done = subprocess.run([sys.executable, "-c", STRATEGIES], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "all equal" in done.stdout


@on_tensorflow
def test_a_gradient_for_each_variable():
    optimizer = RMSprop()
    variables = [keras.Variable(np.ones(2, "float32")) for _ in range(2)]
    optimizer.build(variables)
    with pytest.raises(ValueError, match="got 1 gradient for 2 variables"):
        optimizer.apply([keras.ops.ones(2)])


@pytest.mark.parametrize("views", [dict.values, lambda named: iter(named.values())], ids=["view", "iterator"])
def test_variables_need_not_be_in_a_list(views):
    found = []
    for optimizer in (keras.optimizers.RMSprop(0.1), RMSprop(0.1)):
        named = {name: keras.Variable(np.ones(2, "float32")) for name in "ab"}
        optimizer.build(list(named.values()))
        steps = {"a": keras.ops.ones(2), "b": 2 * keras.ops.ones(2)}
        optimizer.apply(steps.values(), views(named))
        found.append([keras.ops.convert_to_numpy(variable) for variable in named.values()])
    np.testing.assert_allclose(found[1], found[0], rtol=1e-6)


@on_tensorflow
def test_another_backend_is_not_given_tensorflows_operations(monkeypatch):
    """The rules of the choice, which the tests on the other backends see as a whole."""
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    weights, reference, optimizer = variables(), Reference(**DEFAULTS), RMSprop(**DEFAULTS)
    optimizer.build(weights)
    assert not optimizer._buffers._variables
    assert optimizer._is_alone() is False
    step = gradients()[0]
    assert optimizers._is_dense_tensorflow(tensors(step)[0], weights[0].value) is False
    run(optimizer, weights, [step])
    reference.apply(step)
    assert_close(weights, reference.values)


@on_tensorflow
@pytest.mark.parametrize("centered", [False, True])
def test_updates_that_share_a_buffer_lock_it(centered):
    import tensorflow as tf

    weights, optimizer = variables(), RMSprop(centered=centered)
    optimizer.build(weights)
    function = tf.function(lambda *grads: optimizer.apply(list(grads), weights), autograph=False)
    graph = function.get_concrete_function(*tensors(gradients()[0])).graph
    locks = [op.get_attr("use_locking") for op in graph.get_operations() if op.type.endswith("RMSProp")]
    assert locks == [True] * len(SHAPES)


def test_rho_and_momentum_of_one():
    """The mean square stays 1, and the increments add up: 0.1, then 0.2."""
    optimizer = RMSprop(0.1, rho=1.0, momentum=1.0, epsilon=0.0, initial_mean_square=1.0)
    variable = keras.Variable(np.ones(2, "float32"))
    for _ in range(2):
        optimizer.apply([keras.ops.ones(2)], [variable])
    np.testing.assert_allclose(keras.ops.convert_to_numpy(variable), 0.7, rtol=1e-6)
