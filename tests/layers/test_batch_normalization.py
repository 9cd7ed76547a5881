"""Our BatchNormalization against Keras's: numerics, moving averages, config, weights."""

import keras
import numpy as np
import pytest

from polynet_keras.layers import BatchNormalization, batch_normalization, synchronize_batch_normalization
from tests import children
from tests.reference import gradients

on_tensorflow = pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="the fused kernel is TensorFlow's")


def twins(shape=(6, 5, 8), dtype="float32", **arguments):
    """The same one-layer model with Keras's layer and with ours, random parameters and statistics."""
    models = []
    for cls in (keras.layers.BatchNormalization, BatchNormalization):
        inputs = keras.Input(shape, dtype=dtype if dtype == "float64" else "float32")
        outputs = cls(dtype=dtype, epsilon=1e-5, momentum=0.9, name="bn", **arguments)(inputs)
        models.append(keras.Model(inputs, outputs))
    rng = np.random.default_rng(0)
    values = [rng.uniform(0.5, 1.5, tuple(variable.shape)) for variable in models[0].weights]
    for model in models:
        model.set_weights(values)
    return models


def images(*shape, seed=1, dtype="float32"):
    return np.random.default_rng(seed).normal(0.7, 1.8, shape).astype(dtype)


def values(model):
    return [keras.ops.convert_to_numpy(variable) for variable in model.weights]


def assert_same(theirs, ours, x, tolerance=1e-5):
    """Outputs, gradients and moving statistics over two training steps, and inference after them."""
    weighting = images(*keras.ops.shape(theirs(x)), seed=2)
    for _ in range(2):
        for a, b in zip(gradients(theirs, x, weighting), gradients(ours, x, weighting), strict=True):
            np.testing.assert_allclose(b, a, rtol=tolerance, atol=tolerance * max(1, np.abs(a).max()))
        for training in (True, False):
            a, b = (
                keras.ops.convert_to_numpy(keras.ops.cast(m(x, training=training), "float32")) for m in (theirs, ours)
            )
            np.testing.assert_allclose(b, a, rtol=tolerance, atol=tolerance * 5)
        for a, b in zip(values(theirs), values(ours), strict=True):
            np.testing.assert_allclose(b, a, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("batch", [1, 2, 7])
@pytest.mark.parametrize("arguments", [{}, {"center": False}, {"scale": False}, {"axis": 1}, {"axis": 3}, {"axis": -3}])
def test_numerics_are_keras(arguments, batch):
    theirs, ours = twins(**arguments)
    assert_same(theirs, ours, images(batch, 6, 5, 8))


def test_one_value_a_channel():
    theirs, ours = twins((1, 1, 8))
    assert_same(theirs, ours, images(1, 1, 1, 8))


@pytest.mark.parametrize("shape", [(8,), (5, 8), (3, 4, 5, 8)])
def test_other_ranks_fall_back(shape):
    theirs, ours = twins(shape)
    assert_same(theirs, ours, images(4, *shape))


def test_float64_falls_back():
    theirs, ours = twins(dtype="float64")
    x = images(4, 6, 5, 8, dtype="float64")
    np.testing.assert_allclose(*(keras.ops.convert_to_numpy(m(x, training=True)) for m in (ours, theirs)), rtol=1e-12)


def test_frozen_layer_infers_and_keeps_its_statistics():
    theirs, ours = twins()
    x = images(4, 6, 5, 8)
    for model in (theirs, ours):
        model.get_layer("bn").trainable = False
    before = values(ours)
    np.testing.assert_allclose(*(keras.ops.convert_to_numpy(m(x, training=True)) for m in (ours, theirs)), atol=1e-5)
    weighting = images(4, 6, 5, 8, seed=2)
    with_respect_to_input = []
    for model in (theirs, ours):
        model.get_layer("bn").trainable = False
        inputs = keras.Input((6, 5, 8))
        shifted = keras.layers.Dense(8, use_bias=False, kernel_initializer="identity")(inputs)
        with_respect_to_input.append(gradients(keras.Model(inputs, model.get_layer("bn")(shifted)), x, weighting))
    for a, b in zip(*with_respect_to_input, strict=True):
        np.testing.assert_allclose(b, a, rtol=1e-5, atol=1e-5 * np.abs(a).max())
    np.testing.assert_array_equal(np.concatenate(before), np.concatenate(values(ours)))


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_mixed_precision(policy):
    theirs, ours = twins(dtype=policy)
    # Half precision keeps 11 bits, bfloat16 8: one rounding of the output and one of the input's gradient.
    assert_same(theirs, ours, images(4, 6, 5, 8), tolerance=2.0**-9 if policy == "mixed_float16" else 2.0**-6)
    assert keras.backend.standardize_dtype(ours(images(4, 6, 5, 8)).dtype) == policy.removeprefix("mixed_")


def test_mask_falls_back():
    inputs = images(2, 6, 5, 8)
    mask = np.random.default_rng(3).random((2, 6, 5)) < 0.5
    theirs, ours = (model.get_layer("bn") for model in twins())
    a, b = (keras.ops.convert_to_numpy(bn(inputs, training=True, mask=mask)) for bn in (theirs, ours))
    np.testing.assert_allclose(b, a, atol=1e-5)


def test_renorm_falls_back():
    theirs, ours = twins(renorm=True)
    assert_same(theirs, ours, images(4, 6, 5, 8))


def test_config_and_weights_are_interchangeable(tmp_path):
    theirs, ours = twins()
    a, b = theirs.get_layer("bn").get_config(), ours.get_layer("bn").get_config()
    assert a.keys() == b.keys()
    assert a == b
    assert BatchNormalization.from_config(a).get_config() == a
    theirs.save_weights(tmp_path / "theirs.weights.h5")
    ours.set_weights([value * 0 for value in ours.get_weights()])
    ours.load_weights(tmp_path / "theirs.weights.h5")
    np.testing.assert_array_equal(np.concatenate(values(theirs)), np.concatenate(values(ours)))


@on_tensorflow
@pytest.mark.parametrize("arguments", [{}, {"axis": 1}])
def test_synchronized_alone_is_keras(arguments):
    theirs, _ = twins(**arguments)
    synchronized = twins(synchronized=True, **arguments)[1]
    assert synchronized.get_layer("bn").get_config()["synchronized"]
    assert_same(theirs, synchronized, images(5, 6, 5, 8))


@on_tensorflow
def test_one_example_moves_the_statistics_of_a_synchronized_layer():
    theirs, ours = twins((8,))
    ours.get_layer("bn").synchronized = True
    x = images(1, 8)
    for model in (theirs, ours):
        model(x, training=True)
    for a, b in zip(values(theirs), values(ours), strict=True):
        np.testing.assert_allclose(b, a, rtol=1e-6)


@on_tensorflow
@pytest.mark.parametrize("shape", [(6, 5, 8), (8,)])
@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_a_synchronized_layer_keeps_to_its_precision(policy, shape):
    theirs, ours = twins(shape, dtype=policy)
    ours.get_layer("bn").synchronized = True
    x = images(4, *shape)
    a, b = (m(x, training=True) for m in (theirs, ours))
    assert b.dtype == a.dtype == policy.removeprefix("mixed_")
    np.testing.assert_allclose(np.asarray(b, "float32"), np.asarray(a, "float32"), atol=0.05)


@on_tensorflow
@pytest.mark.parametrize(("shape", "synchronized"), [((6, 5, 8), False), ((8,), True)])
def test_outputs_are_of_the_layers_precision_whatever_the_inputs_are(shape, synchronized):
    x = keras.ops.cast(images(4, *shape), "float16")
    layer = BatchNormalization(autocast=False, synchronized=synchronized)
    theirs = keras.layers.BatchNormalization(autocast=False)
    assert layer(x, training=True).dtype == theirs(x, training=True).dtype == "float32"


@on_tensorflow
def test_several_replicas_need_the_moments_of_all(monkeypatch):
    from polynet_keras.layers import synchronized_moments

    layer = BatchNormalization(synchronized=True)
    fused, others = images(2, 4, 4, 3), images(2, 3)
    for replicas, expected in ((1, [False, True]), (2, [True, True])):
        monkeypatch.setattr(synchronized_moments, "replica_count", lambda replicas=replicas: replicas)
        assert [layer._needs_global_moments(keras.ops.convert_to_tensor(x)) for x in (fused, others)] == expected


@on_tensorflow
def test_a_layer_that_is_not_synchronized_asks_no_other_replica(monkeypatch):
    from polynet_keras.layers import synchronized_moments

    theirs, ours = twins()
    monkeypatch.setattr(synchronized_moments, "replica_count", lambda: 2)
    monkeypatch.setattr(synchronized_moments, "normalize", None)
    x = images(3, 6, 5, 8)
    np.testing.assert_allclose(ours(x, training=True), theirs(x, training=True), rtol=1e-4, atol=1e-4)


@on_tensorflow
def test_gamma_and_beta_have_gradients_in_inference():
    import tensorflow as tf

    x = tf.constant(images(3, 6, 5, 8))
    found = []
    for model in twins():
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(model(x, training=False) * x)
        found.append(tape.gradient(loss, [variable.value for variable in model.trainable_variables]))
    for a, b in zip(*found, strict=True):
        assert np.abs(a).max() > 1
        np.testing.assert_allclose(b, a, rtol=1e-4)


@on_tensorflow
def test_a_synchronized_layer_learns_nothing_without_examples():
    _, ours = twins((8,))
    ours.get_layer("bn").synchronized = True
    before = values(ours)
    ours(images(0, 8), training=True)
    for a, b in zip(before, values(ours), strict=True):
        np.testing.assert_array_equal(b, a)


@on_tensorflow
def test_a_synchronized_layer_of_half_precision():
    layer = BatchNormalization(synchronized=True, dtype="float16")
    assert layer(images(4, 3), training=True).dtype == "float16"
    assert layer.moving_mean.dtype == "float16"
    assert np.abs(np.asarray(layer.moving_mean)).max() > 0


@on_tensorflow
def test_a_batch_of_a_single_value_is_not_empty():
    import tensorflow as tf

    with tf.distribute.OneDeviceStrategy("CPU:0").scope():
        layer = BatchNormalization(momentum=0.5)
        layer.build((None, 1, 1, 1))
        tf.function(lambda x: layer(x, training=True)).get_concrete_function(tf.TensorSpec((None, 1, 1, 1)))(
            tf.fill((1, 1, 1, 1), 3.0)
        )
    np.testing.assert_allclose(layer.moving_mean, [1.5])


def test_the_momentum_of_a_compiled_step():
    """In a nested model too, and of Keras's own layer."""
    inner = keras.Sequential([keras.Input((6, 5, 2)), BatchNormalization(momentum=0.9)])
    model = keras.Sequential([keras.Input((6, 5, 2)), keras.layers.BatchNormalization(), inner])
    batch_normalization.set_normalization_momentum(model, 0.25)
    model.compile("sgd", "mse")
    x = 3 + 2 * images(3, 6, 5, 2)
    model.train_on_batch(x, x)
    first, second = model.layers[0], inner.layers[0]
    np.testing.assert_allclose(first.moving_mean, 0.75 * x.mean((0, 1, 2)), rtol=1e-4)
    np.testing.assert_allclose(first.moving_variance, 0.25 + 0.75 * x.var((0, 1, 2)), rtol=1e-4)
    np.testing.assert_allclose(second.moving_mean, [0, 0], atol=1e-4)
    np.testing.assert_allclose(second.moving_variance, [1, 1], rtol=2e-3)  # epsilon of the first


@pytest.mark.parametrize("convert", [np.asarray, keras.ops.convert_to_tensor], ids=["array", "tensor"])
def test_stateless_calls(convert):
    """As JAX trains: the variables are handed over, and come back."""
    theirs, ours = twins()
    x = convert(images(3, 6, 5, 8))
    results = []
    for model in (theirs, ours):
        layer = model.get_layer("bn")
        groups = layer.trainable_variables, layer.non_trainable_variables
        state = [[keras.ops.copy(keras.ops.convert_to_tensor(v)) for v in group] for group in groups]
        before = values(model)
        outputs, moved = layer.stateless_call(*state, x, training=True)
        for a, b in zip(before, values(model), strict=True):
            np.testing.assert_array_equal(a, b)
        results.append([keras.ops.convert_to_numpy(value) for value in (outputs, *moved)])
    for a, b in zip(*results, strict=True):
        np.testing.assert_allclose(b, a, rtol=1e-5, atol=1e-5)


@on_tensorflow
@pytest.mark.parametrize("open_shape", [False, True])
def test_the_factor_between_both_variances(open_shape):
    """(n - 1) / n for n values of a channel; of one value and of none, there is nothing to divide by."""
    import tensorflow as tf

    for batch, expected in ((0, 1.0), (1, 1.0), (2, 1 / 2), (9, 8 / 9)):
        for axis, shape in ((-1, (batch, 1, 1, 3)), (1, (batch, 3, 1, 1))):
            if open_shape:
                spec = tf.TensorSpec([None if i != axis % 4 else 3 for i in range(4)])
                function = tf.function(
                    lambda x, axis=axis: batch_normalization._bessel(x, axis), input_signature=[spec], autograph=False
                )
                found = function(tf.ones(shape))
            elif batch:
                found = batch_normalization._bessel(tf.ones(shape), axis)
            else:
                continue  # a batch that is known to be empty counts as an open one
            assert float(found) == pytest.approx(expected)


@on_tensorflow
def test_whether_a_gpu_is_visible(monkeypatch):
    import tensorflow as tf

    for devices in (["GPU:0"], []):
        monkeypatch.setattr(tf.config, "list_logical_devices", lambda kind, devices=devices: {"GPU": devices}[kind])
        assert batch_normalization._gpu_is_visible() is bool(devices)


def nested_net():
    block = keras.Sequential([keras.Input((4,)), BatchNormalization(), keras.layers.Dense(4)], name="block")
    inputs = keras.Input((4,))
    return keras.Model(inputs, keras.layers.BatchNormalization()(block(BatchNormalization()(inputs))))


@on_tensorflow
def test_synchronize_reaches_every_layer(tmp_path):
    model = nested_net()
    model.compile("sgd", "mse")
    x = images(4, 4)
    model.train_on_batch(x, x)
    traced = model.train_function
    synchronize_batch_normalization(model)
    assert model.train_function is not traced
    model.train_on_batch(x, x)
    model.save(tmp_path / "model.keras")
    for net in (model, keras.saving.load_model(tmp_path / "model.keras"), keras.models.clone_model(model)):
        layers = [layer for layer in net._flatten_layers() if isinstance(layer, keras.layers.BatchNormalization)]
        assert [layer.synchronized for layer in layers] == [True] * 3


def test_nothing_to_synchronize():
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)], name="plain")
    if keras.backend.backend() == "tensorflow":
        with pytest.raises(ValueError, match="model 'plain' has no batch normalization to synchronize"):
            synchronize_batch_normalization(model)
    else:
        with pytest.raises(ValueError, match=f"TensorFlow backend only; this is '{keras.backend.backend()}'"):
            synchronize_batch_normalization(nested_net())


def operations(model, training):
    import tensorflow as tf

    graph = tf.function(lambda x: model(x, training=training)).get_concrete_function(tf.zeros((2, 6, 5, 8))).graph
    definition = graph.as_graph_def()
    nodes = [node for function in definition.library.function for node in function.node_def]
    return {node.op for node in [*definition.node, *nodes]}


@on_tensorflow
@pytest.mark.parametrize("training", [True, False])
def test_the_fused_kernel_is_used(training):
    for arguments in ({}, {"synchronized": True}):  # there is nobody to synchronize with
        _, ours = twins(**arguments)
        found = operations(ours, training)
        assert "FusedBatchNormV3" in found
        assert "Rsqrt" not in found


@on_tensorflow
@pytest.mark.parametrize("batch", [3, 1])
def test_xla(batch):
    import tensorflow as tf

    theirs, ours = twins()
    x = images(batch, 6, 5, 8)
    weighting = images(*x.shape, seed=2)

    def step(model):
        with tf.GradientTape() as tape:
            y = model(x, training=True)
            loss = tf.reduce_sum(y * weighting)
        return [y, *tape.gradient(loss, [variable.value for variable in model.trainable_variables])]

    expected = tf.function(lambda: step(theirs))()
    found = tf.function(lambda: step(ours), jit_compile=True)()
    for a, b in zip(expected, found, strict=True):
        np.testing.assert_allclose(b, a, atol=1e-5 * max(1, np.abs(a).max()))
    for a, b in zip(values(theirs), values(ours), strict=True):
        np.testing.assert_allclose(b, a, rtol=1e-5, atol=1e-5)


@on_tensorflow
@pytest.mark.parametrize("jit_compile", [False, True])
def test_an_empty_batch_leaves_everything_as_it_is(jit_compile):
    import tensorflow as tf

    _, ours = twins()
    before = values(ours)

    @tf.function(jit_compile=jit_compile)
    def step(x):
        with tf.GradientTape() as tape:
            y = ours(x, training=True)
            loss = tf.reduce_sum(y)
        return y, tape.gradient(loss, ours.trainable_variables)

    y, found = step(tf.zeros((0, 6, 5, 8)))
    assert y.shape == (0, 6, 5, 8)
    for gradient in found:
        np.testing.assert_array_equal(gradient, np.zeros(8))
    np.testing.assert_array_equal(np.concatenate(before), np.concatenate(values(ours)))


@on_tensorflow
@pytest.mark.parametrize("shape", [(None, 6, 5, 8), (None, None, None, 8)])
def test_a_replica_without_examples_leaves_everything_as_it_is(shape):
    """When the step is traced nobody knows whether the replica's part will be empty."""
    import tensorflow as tf

    strategy = tf.distribute.MirroredStrategy(["CPU:0"])
    with strategy.scope():
        layer = BatchNormalization()
        layer.build(shape)
    before = [np.asarray(variable) for variable in layer.weights]

    @tf.function(input_signature=[tf.TensorSpec(shape)])
    def step(x):
        def on_replica(x):
            with tf.GradientTape() as tape:
                loss = tf.reduce_sum(layer(x, training=True))
            return tape.gradient(loss, layer.trainable_variables)

        return strategy.run(on_replica, args=(x,))

    for gradient in step(tf.zeros((0, 6, 5, 8))):
        np.testing.assert_array_equal(gradient, np.zeros(8))
    for variable, value in zip(layer.weights, before, strict=True):
        np.testing.assert_array_equal(variable, value)
    step(tf.ones((2, 6, 5, 8)))
    assert (np.asarray(layer.moving_mean) != before[2]).all()


@on_tensorflow
def test_outside_of_a_strategy_no_batch_is_looked_at_twice():
    """A dataset gives no empty batch: the graph need not ask."""
    import tensorflow as tf

    _, ours = twins()
    spec = tf.TensorSpec((None, 6, 5, 8))
    graph = tf.function(lambda x: ours(x, training=True)).get_concrete_function(spec).graph
    assert "Size" not in {node.op for node in graph.as_graph_def().node}


AN_EMPTY_REPLICA = """
import numpy as np
import tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
import keras
from polynet_keras.layers import BatchNormalization

x = np.random.default_rng(0).normal(size=(5, 4, 4, 3)).astype("float32")
strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
with strategy.scope():
    layers = [keras.Input((4, 4, 3)), BatchNormalization(), keras.layers.Flatten(), keras.layers.Dense(1)]
    model = keras.Sequential(layers)
    model.compile("sgd", "mse")
# Batches of 4 and 1: of the second, one replica gets nothing.
model.fit(tf.data.Dataset.from_tensor_slices((x, x[:, 0, 0, :1])).batch(4), shuffle=False, verbose=0)
assert model.optimizer.iterations == 2
for variable in model.variables:
    copies = strategy.experimental_local_results(variable.value)
    assert len(copies) == 2, variable.path
    for copy in copies:
        assert np.isfinite(np.asarray(copy)).all(), variable.path
"""


@on_tensorflow
def test_an_empty_replica():
    done = children.run(AN_EMPTY_REPLICA)
    assert done.returncode == 0, done.stderr[-3000:]


@on_tensorflow
@pytest.mark.parametrize("shape", [(6, 5, 8), (None, None, 8), (1, 1, 8)])
@pytest.mark.parametrize("batch", [1, 2, 7])
def test_with_a_gpu_the_moving_variance_is_of_the_biased_one_too(shape, batch, monkeypatch):
    """On a GPU the kernel hands on no biased variance, and its moving variance is of the unbiased one.

    So it is on a processor, which has one kernel more: what is computed for a GPU can be tested here.
    """
    import tensorflow as tf

    monkeypatch.setattr(batch_normalization, "_gpu_is_visible", lambda: True)
    theirs, ours = twins(shape)
    x = images(batch, *(side or 3 for side in shape))
    steps = [
        tf.function(lambda x, m=model: m(x, training=True), input_signature=[tf.TensorSpec((None, *shape))])
        for model in (theirs, ours)
    ]
    for _ in range(3):
        a, b = (step(x) for step in steps)
        np.testing.assert_allclose(b, a, atol=5e-5)
    for a, b in zip(values(theirs), values(ours), strict=True):
        np.testing.assert_allclose(b, a, rtol=1e-5, atol=1e-5)
    assert_same(theirs, ours, x)


@on_tensorflow
def test_with_a_gpu_that_is_so_under_xla(monkeypatch):
    """Keras has XLA compile a step there."""
    import tensorflow as tf

    monkeypatch.setattr(batch_normalization, "_gpu_is_visible", lambda: True)
    theirs, ours = twins()
    x = images(7, 6, 5, 8)
    expected, found = theirs(x, training=True), tf.function(lambda: ours(x, training=True), jit_compile=True)()
    np.testing.assert_allclose(found, expected, atol=5e-5)
    for a, b in zip(values(theirs), values(ours), strict=True):
        np.testing.assert_allclose(b, a, rtol=1e-5, atol=1e-5)


@on_tensorflow
def test_with_a_gpu_nothing_of_an_empty_batch_is_learned(monkeypatch):
    import tensorflow as tf

    monkeypatch.setattr(batch_normalization, "_gpu_is_visible", lambda: True)
    _, ours = twins()
    before = values(ours)
    ours(tf.zeros((0, 6, 5, 8)), training=True)
    np.testing.assert_array_equal(np.concatenate(before), np.concatenate(values(ours)))


@on_tensorflow
@pytest.mark.parametrize(
    ("arguments", "shape", "gpu", "fused"),
    [
        ({}, (6, 5, 8), False, True),
        ({"axis": 3}, (6, 5, 8), False, True),
        ({"axis": 1}, (6, 5, 8), False, False),
        ({"axis": 1}, (6, 5, 8), True, True),
        ({"axis": -3}, (6, 5, 8), True, True),
        ({"axis": 2}, (6, 5, 8), True, False),
        ({}, (8,), True, False),
        ({}, (5, 8), False, False),
        ({"dtype": "mixed_float16"}, (6, 5, 8), False, True),
        ({"dtype": "mixed_bfloat16"}, (6, 5, 8), False, True),
        ({"dtype": "float64"}, (6, 5, 8), False, False),
        ({"dtype": "float16"}, (6, 5, 8), False, False),  # its variables are float16: the kernel takes float32
    ],
)
def test_where_the_fused_kernel_is(arguments, shape, gpu, fused, monkeypatch):
    import tensorflow as tf

    monkeypatch.setattr(batch_normalization, "_gpu_is_visible", lambda: gpu)
    layer = BatchNormalization(**arguments)
    layer.build((None, *shape))
    spec = tf.TensorSpec((None, *shape), layer.compute_dtype)
    graph = tf.function(lambda x: layer(x, training=True)).get_concrete_function(spec).graph
    (kernel,) = [node for node in graph.as_graph_def().node if node.op == "FusedBatchNormV3"] or [None]
    assert (kernel is not None) is fused
    if fused:
        assert kernel.attr["data_format"].s == (b"NCHW" if arguments.get("axis") in (1, -3) else b"NHWC")
        assert kernel.attr["epsilon"].f == pytest.approx(layer.epsilon)


def test_files_name_the_layer():
    assert keras.saving.get_registered_name(BatchNormalization) == "polynet_keras>BatchNormalization"


@pytest.mark.parametrize("backend", ["tensorflow", "jax", "torch"])
def test_a_synchronized_layer_comes_back_on_every_backend(backend, monkeypatch):
    """As one that was saved on TensorFlow, the only backend that has it."""
    config = {**BatchNormalization(name="bn").get_config(), "synchronized": True}
    layer = BatchNormalization.from_config(config)
    assert layer.synchronized is (keras.backend.backend() == "tensorflow")
    monkeypatch.setattr(keras.backend, "backend", lambda: backend)
    if backend != "tensorflow":
        assert BatchNormalization.from_config(config).synchronized is False
        with pytest.raises(ValueError, match=f"on the TensorFlow backend only; this is {backend!r}"):
            synchronize_batch_normalization(nested_net())
    assert config["synchronized"]  # and is not changed
