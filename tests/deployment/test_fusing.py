"""Fused networks compute what they were made of, on every backend, for every structure and after any training."""

import functools

import keras
import numpy as np
import pytest

from polynet_keras import InceptionResNet, PolyNet
from polynet_keras.deployment.fusing import fuse
from polynet_keras.layers import ChannelSplit, StochasticResidualScaling
from tests.reference import randomize

ALL_MODULES = (
    "1 x [ir, poly-2, poly-3, mpoly-2] | 1 x [mpoly-3, 2-way, 3-way]"
    " | 1 x [I + F + G + HF, I + GF, I + F + GF + GHF + F^2]"
)
SMALL = "1 x [2-way] | 1 x [poly-2] | 1 x [ir]"


def network(structure=SMALL, seed=0, **arguments):
    settings = {"width": 0.1, "input_shape": (107, 91, 3), "classes": 7, "classifier_activation": None}
    model = PolyNet(weights=None, structure=structure, **{**settings, **arguments})
    randomize(model, seed)
    return model


@functools.cache
def same_network(structure=SMALL, **arguments):
    """For tests that fuse a network and leave it as it is, or assign again what they change of it."""
    return network(structure, **arguments)


def images(model, count=2, seed=0):
    height, width, channels = (side or 80 for side in model.input_shape[1:])
    return np.random.default_rng(seed).normal(size=(count, height, width, channels)).astype("float32")


def outputs(model, x):
    return [keras.ops.convert_to_numpy(y) for y in keras.tree.flatten(model(x, training=False))]


def assert_same(fused, model, tolerance=1e-4, seed=0):
    x = images(model, seed=seed)
    for found, expected in zip(outputs(fused, x), outputs(model, x), strict=True):
        assert found.shape == expected.shape
        assert found.dtype == expected.dtype
        np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance * np.abs(expected).max())


def layers_of(model, kind):
    return [layer for layer in model.layers if isinstance(layer, kind)]


@pytest.mark.parametrize("shared", [pytest.param("duplicate", marks=pytest.mark.slow), "affine"])
@pytest.mark.parametrize("share_projection", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_every_module_computes_the_same(shared, share_projection):
    model = same_network(ALL_MODULES, share_projection=share_projection)
    fused = fuse(model, shared)
    assert_same(fused, model)
    assert not layers_of(fused, StochasticResidualScaling)
    if shared == "duplicate":
        assert not layers_of(fused, keras.layers.BatchNormalization)


@pytest.fixture(scope="module")
def float64_network():
    keras.config.set_dtype_policy("float64")
    try:
        return network(ALL_MODULES, seed=1)
    finally:
        keras.config.set_dtype_policy("float32")


@pytest.mark.skipif(
    keras.backend.backend() != "tensorflow",
    reason="JAX has no float64 by default, and Keras's normalization on PyTorch computes in float32",
)
@pytest.mark.slow
@pytest.mark.parametrize("shared", ["duplicate", "affine"])
def test_in_float64_only_rounding_is_left(float64_network, shared):
    keras.config.set_dtype_policy("float64")
    try:
        assert outputs(float64_network, images(float64_network))[0].dtype == "float64"
        assert_same(fuse(float64_network, shared), float64_network, tolerance=1e-10)
    finally:
        keras.config.set_dtype_policy("float32")


@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments",
    [
        {"include_top": False},
        {"include_top": False, "pooling": "avg", "input_shape": (None, None, 3)},
        {"include_top": False, "pooling": "max"},
        {"classifier_activation": "softmax", "classes": 1},
        {"width": 0.25, "input_shape": (75, 75, 1)},
        {"residual_scale": 0.3},
        {"residual_scale": (1.5, 0.0)},
        {"residual_scale": 1e-30},
    ],
    ids=str,
)
def test_of_any_arguments(arguments):
    model = network(**arguments)
    assert_same(fuse(model), model)


@pytest.mark.slow
def test_inception_resnet():
    model = InceptionResNet((1, 2, 1), width=0.1, input_shape=(75, 75, 3), classifier_activation=None)
    randomize(model, 3)
    assert_same(fuse(model), model)


SHARED_AND_FACTORS = [
    pytest.param("duplicate", (0.0, 0.7, 1.0), marks=pytest.mark.slow),
    ("affine", (1e-9, 0.5, 2.0)),
    pytest.param("affine", (0.4, 0.0, 0.0), marks=pytest.mark.slow),
    pytest.param("duplicate", (0.0, 0.0, 0.0), marks=pytest.mark.slow),
    pytest.param("affine", (0.0, 0.7, 1.0), marks=pytest.mark.slow),
    pytest.param("duplicate", (1e-9, 0.5, 2.0), marks=pytest.mark.slow),
    pytest.param("duplicate", (0.4, 0.0, 0.0), marks=pytest.mark.slow),
    pytest.param("affine", (0.0, 0.0, 0.0), marks=pytest.mark.slow),
]


@pytest.mark.slow
@pytest.mark.parametrize(("shared", "factors"), SHARED_AND_FACTORS, ids=str)
def test_each_path_keeps_its_own_factor(shared, factors):
    """The factor of a path that the next order takes too must not reach that order."""
    model = same_network("1 x [poly-3] | 1 x [mpoly-3, 3-way] | 1 x [I + F + G + HF]")
    for layer in layers_of(model, StochasticResidualScaling):
        layer.scale.assign(factors)
        layer.survival_probability.assign((1.0, 0.9, 0.8))
    assert_same(fuse(model, shared), model)


@pytest.mark.slow
@pytest.mark.parametrize("shared", ["duplicate", "affine"])
def test_a_shared_convolution_is_folded_once_for_each_normalization(shared):
    """One kernel, three normalizations: folding any of them into the common kernel would be wrong for the others."""
    model = same_network("1 x [poly-3] | 1 x [ir] | 1 x [ir]")
    normalizations = [f"stage_a_01_{application}_branch1_conv2_bn" for application in ("f", "ff", "fff")]
    for name, gamma in zip(normalizations, (0.2, 1.0, 5.0), strict=True):
        layer = model.get_layer(name)
        layer.gamma.assign(np.full(layer.gamma.shape, gamma))
    fused = fuse(model, shared)
    assert_same(fused, model)
    names = {layer.name for layer in layers_of(fused, keras.layers.Conv2D) if "stage_a_01_f" in layer.name}
    copies = {name for name in names if "branch1_conv2" in name}
    of_each = {name.removesuffix("_bn") for name in normalizations}
    assert copies == (of_each if shared == "duplicate" else {"stage_a_01_f_branch1_conv2_shared"})


def test_what_is_merged():
    """By hand: a 2-way unit of stage A has its six 1×1 convolutions of x in one, its two projections in another."""
    model = network("1 x [2-way] | 1 x [poly-3] | 1 x [ir]")
    fused = fuse(model)
    unit_a = [layer.name for layer in layers_of(fused, keras.layers.Conv2D) if layer.name.startswith("stage_a_01")]
    assert sorted(unit_a) == [
        "stage_a_01_f_branch1_conv1_merged",
        "stage_a_01_f_branch1_conv2",
        "stage_a_01_f_branch1_conv3",
        "stage_a_01_f_branch2_conv2",
        "stage_a_01_g_branch1_conv2",
        "stage_a_01_g_branch1_conv3",
        "stage_a_01_g_branch2_conv2",
        "stage_a_01_sum_f_g_projection",
    ]
    # Of stage B's poly-3, each order: two 1×1 in one, 1×7, 7×1, and a projection, which two takers keep apart.
    unit_b = [layer.name for layer in layers_of(fused, keras.layers.Conv2D) if layer.name.startswith("stage_b_01")]
    assert len(unit_b) == 3 * 4
    relus = [layer.name for layer in layers_of(fused, keras.layers.ReLU)]
    assert sorted(relus) == [
        "stage_a_01_relu",
        "stage_b_01_f_relu",
        "stage_b_01_ff_relu",
        "stage_b_01_relu",
        "stage_c_01_relu",
    ]


def test_the_model_is_left_alone_and_shares_nothing():
    model = network()
    before = model.get_weights()
    fused = fuse(model, "affine")
    for variable in fused.weights:
        variable.assign(np.zeros(variable.shape))
    for was, now in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(was, now)


@pytest.mark.parametrize("shared", [pytest.param("duplicate", marks=pytest.mark.slow), "affine"])
def test_saved_and_loaded(tmp_path, shared):
    model = same_network()
    fused = fuse(model, shared)
    fused.save(tmp_path / "fused.keras")
    loaded = keras.saving.load_model(tmp_path / "fused.keras")
    x = images(model)
    np.testing.assert_array_equal(outputs(loaded, x), outputs(fused, x))


def test_name_input_and_outputs_stay():
    model = network(name="net")
    several = keras.Model(model.input, [model.get_layer("stage_a_01_relu").output, model.output], name="several")
    fused = fuse(several)
    assert fused.name == "several"
    assert fused.input_shape == several.input_shape
    assert [tuple(y.shape) for y in fused.outputs] == [tuple(y.shape) for y in several.outputs]
    assert fused.inputs[0].name == "image"
    assert_same(fused, several)


def test_an_output_inside_is_no_place_to_fold_into():
    """What a user takes out before the normalization is the bare convolution."""
    model = same_network()
    bare = model.get_layer("stage_b_01_f_branch1_conv1")
    inner = keras.Model(model.input, [bare._inbound_nodes[0].outputs[0], model.output])
    assert_same(fuse(inner), inner)


@pytest.mark.slow
def test_after_training():
    model = network("1 x [ir] | 1 x [ir] | 1 x [ir]", classes=3, classifier_activation="softmax")
    model.compile("sgd", "sparse_categorical_crossentropy")
    x = images(model, 8)
    model.fit(x, np.arange(8) % 3, batch_size=4, epochs=2, verbose=0)
    assert_same(fuse(model), model)


@pytest.mark.slow
def test_a_head_around_the_network_and_the_network_inside_a_model():
    base = network(include_top=False, pooling="avg")
    inputs = keras.Input((107, 91, 3))
    x = keras.layers.Rescaling(2.0, -1.0)(inputs)
    x = base(x, training=False)
    x = keras.layers.BatchNormalization(name="head_bn")(x)
    x = keras.layers.Dropout(0.5)(x)
    x = keras.layers.Dense(8, "relu")(x)
    outputs = keras.layers.Dense(5, "softmax")(x)
    model = keras.Model(inputs, outputs)
    model.get_layer("head_bn").moving_variance.assign(np.linspace(0.5, 2, base.output_shape[-1]))
    fused = fuse(model)
    assert_same(fused, model)
    assert [layer.name for layer in layers_of(fused, keras.layers.BatchNormalization)] == ["head_bn"]
    sequential = keras.Sequential([base, keras.layers.Dense(4)])
    assert_same(fuse(sequential), sequential)


def test_layers_and_models_that_are_called_twice():
    inputs = keras.Input((16, 16, 4))
    base = keras.Sequential(
        [
            keras.Input((16, 16, 4)),
            keras.layers.Conv2D(4, 3, padding="same"),
            keras.layers.BatchNormalization(name="bn"),
            keras.layers.MaxPooling2D(3, 1, "same", name="pool"),
        ]
    )
    relu = keras.layers.ReLU(name="relu")
    x = relu(keras.layers.Add()([base(inputs), relu(base(base(inputs)))]))
    dense = keras.layers.Dense(4, name="dense")
    model = keras.Model(inputs, dense(dense(keras.layers.GlobalAveragePooling2D()(x))))
    for variable in model.weights:
        variable.assign(np.random.default_rng(0).uniform(0.1, 0.5, variable.shape))
    for shared in ("duplicate", "affine"):
        assert_same(fuse(model, shared), model)


def test_names_that_keras_gave_by_itself():
    """The second call of `pool` would be `pool_2`, which is another layer's own name."""
    inputs = keras.Input((16, 16, 4))
    base = keras.Sequential([keras.Input((16, 16, 4)), keras.layers.MaxPooling2D(2, 1, "same", name="pool")])
    x = keras.layers.AveragePooling2D(2, 1, "same", name="pool_2")(base(base(inputs)))
    x = keras.layers.Conv2D(2, 1, name="a")(x), keras.layers.Conv2D(2, 1, name="b")(x)
    model = keras.Model(inputs, keras.layers.ReLU(name="a_merged_split")(keras.layers.Add(name="a_merged")(x)))
    assert_same(fuse(model), model)


def test_layers_of_different_precision_stay_apart():
    inputs = keras.Input((8, 8, 3))
    half, single = (keras.layers.Conv2D(4, 1, dtype=dtype)(inputs) for dtype in ("mixed_float16", "float32"))
    normalized = keras.layers.BatchNormalization(dtype="float32")(
        keras.layers.Conv2D(4, 3, dtype="mixed_float16")(inputs)
    )
    relu = keras.layers.ReLU(dtype="float32")(keras.layers.Conv2D(4, 3, dtype="mixed_float16")(inputs))
    both = keras.layers.Add(dtype="float32")([half, single])
    model = keras.Model(inputs, [half, single, normalized, relu, both])
    fused = fuse(model)
    x = images(model)
    assert [str(y.dtype) for y in outputs(fused, x)] == [str(y.dtype) for y in outputs(model, x)]
    for found, expected in zip(outputs(fused, x), outputs(model, x), strict=True):
        np.testing.assert_allclose(found, expected, rtol=0, atol=2e-3 * np.abs(expected).max())
    np.testing.assert_allclose(outputs(fused, x)[1], outputs(model, x)[1], rtol=0, atol=1e-5)


def test_a_sum_that_broadcasts():
    inputs = keras.Input((8, 8, 3))
    pooled = keras.layers.GlobalAveragePooling2D(keepdims=True)(inputs)
    paths = [keras.layers.Conv2D(3, 1)(inputs), keras.layers.Conv2D(3, 1)(pooled)]
    model = keras.Model(inputs, keras.layers.Add()([inputs, *paths]))
    assert_same(fuse(model), model)


def test_a_normalization_keeps_what_it_was_adapted_to():
    normalization = keras.layers.Normalization(axis=-1, name="normalization")
    normalization.adapt(np.random.default_rng(0).normal(3, 2, (64, 8, 8, 3)).astype("float32"))
    inputs = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(4, 3)(normalization(inputs))
    model = keras.Model(inputs, keras.layers.GlobalMaxPooling2D()(keras.layers.AveragePooling2D(2)(x)))
    assert_same(fuse(model), model)


def test_mixed_precision_stays_mixed():
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = network()
    finally:
        keras.config.set_dtype_policy("float32")
    fused = fuse(model)
    assert {layer.compute_dtype for layer in layers_of(fused, keras.layers.Conv2D)} == {"bfloat16"}
    assert_same(fused, model, tolerance=0.05)


@pytest.mark.slow
def test_the_checkpoint_of_the_package():
    model = PolyNet(
        weights="fashion_mnist",
        structure="1 x [2-way] | 2 x [poly-3, 2-way] | 1 x [poly-3, 2-way]",
        width=0.25,
        input_shape=(75, 75, 1),
        classes=10,
    )
    assert_same(fuse(model), model)


@pytest.mark.slow
def test_parameters_of_the_full_network():
    """95.3 million and 120.6: three normalizations of one kernel become three kernels."""
    model = PolyNet(weights=None)
    assert round(fuse(model, "duplicate").count_params() / 1e6, 1) == 120.6
    assert round(fuse(model, "affine").count_params() / 1e6, 1) == 95.3


def test_channels_are_split():
    x = np.arange(2 * 3 * 3 * 6, dtype="float32").reshape(2, 3, 3, 6)
    for axis, of_axis in ((-1, x), (1, np.moveaxis(x, -1, 1))):
        parts = ChannelSplit([1, 3, 2], axis)(of_axis)
        for part, expected in zip(parts, np.split(of_axis, [1, 4], axis), strict=True):
            np.testing.assert_array_equal(keras.ops.convert_to_numpy(part), expected)
    with pytest.raises(ValueError, match=r"sizes=1, 2 add up to 3; the input has 6 channels"):
        ChannelSplit([1, 2])(x)


class Unknown(keras.layers.Layer):
    def call(self, x):
        return x * 2


class TwiceNormalized(keras.layers.BatchNormalization):
    def call(self, x, training=None, mask=None):
        return 2 * super().call(x, training=training, mask=mask)


def masked():
    inputs = keras.Input((8, 8, 3))
    mask = keras.layers.ReLU()(inputs)
    return keras.Model(inputs, keras.layers.Softmax(name="masked")(inputs, mask=mask))


def quantized():
    inputs = keras.Input((75, 75, 3))
    dense = keras.layers.Dense(4, name="int8")
    model = keras.Model(inputs, dense(inputs))
    model.quantize("int8")
    return model


def trained_when_called():
    inputs = keras.Input((75, 75, 3))
    return keras.Model(inputs, keras.layers.Dropout(0.5, name="noise")(inputs, training=True))


def of_layer(layer, count=1):
    inputs = [keras.Input((8, 8, 3)) for _ in range(count)]
    return keras.Model(inputs, layer(inputs if count > 1 else inputs[0]))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: of_layer(Unknown(name="mine")), "layer 'mine' of the type Unknown cannot be fused"),
        (lambda: of_layer(keras.layers.ReLU(6.0, name="relu6")), "layer 'relu6' of the type ReLU cannot be fused"),
        (lambda: of_layer(keras.layers.Conv2D(2, 3, activation="gelu", name="conv")), "'conv' has the activation gelu"),
        (
            lambda: of_layer(keras.layers.Conv2D(2, 3, activation=keras.layers.LeakyReLU(), name="conv")),
            "'conv' has the activation LeakyReLU",
        ),
        (
            lambda: of_layer(keras.layers.Activation(lambda x: x, name="own")),
            "'own' cannot be made again from its conf",
        ),
        (lambda: of_layer(TwiceNormalized(name="twice")), "'twice' of the type TwiceNormalized cannot be fused"),
        (masked, "'masked' is called with 2 tensors, as with a mask; expected one"),
        (lambda: of_layer(keras.layers.Add(), 2), "functional Keras model with one input"),
        (lambda: keras.Sequential([keras.layers.Dense(2)]), "functional Keras model with one input"),
        (trained_when_called, "layer 'noise' is called with training=True"),
        (quantized, "layer 'int8' is quantized already"),
        (lambda: fuse(of_layer(keras.layers.Conv2D(2, 3))), None),
        (lambda: fuse(same_network()), "the model is already fused"),
    ],
)
def test_what_is_not_known_is_refused(make, message):
    model = make()
    if message is None:
        fuse(model)
        return
    with pytest.raises(ValueError, match=message):
        fuse(model)


def test_shared_has_two_values():
    with pytest.raises(ValueError, match=r"shared='copy' must be one of duplicate, affine"):
        fuse(of_layer(keras.layers.Conv2D(2, 3)), "copy")
