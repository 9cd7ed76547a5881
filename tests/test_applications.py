"""The builders, as users call them: arguments, shapes, names, gradients, saving."""

import hashlib
import json
import os
import warnings
from pathlib import Path

import keras
import numpy as np
import pytest

import polynet_keras
from polynet_keras import InceptionResNet, PolyNet
from polynet_keras.layers import StochasticResidualScaling
from tests.reference import gradients, need_channels_first_convolutions, randomize

GOLDEN = Path(__file__).parent / "golden"
ALL_MODULES = "1 x [2-way, 3-way] | 1 x [poly-2, poly-3, ir] | 1 x [mpoly-2, mpoly-3]"
SMALL = {
    "weights": None,
    "structure": "1 x [ir] | 1 x [ir] | 1 x [ir]",
    "width": 0.1,
    "input_shape": (75, 75, 3),
}


def small(**arguments):
    return PolyNet(**{**SMALL, **arguments})


def small_inception_resnet(depths=(1, 1, 1), **arguments):
    settings = {**SMALL, **arguments}
    del settings["structure"]
    return InceptionResNet(depths, **settings)


builders = pytest.mark.parametrize("build", [small, pytest.param(small_inception_resnet, marks=pytest.mark.slow)])


def infer(model, x):
    """`predict`, without compiling a function for every small model."""
    return keras.ops.convert_to_numpy(model(x, training=False))


def images(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype("float32")


@pytest.mark.parametrize(
    ("build", "name"),
    [(small, "polynet"), pytest.param(small_inception_resnet, "inception_resnet", marks=pytest.mark.slow)],
)
def test_top(build, name):
    model = build(classes=7)
    assert model.name == name
    assert model.output_shape == (None, 7)
    probabilities = infer(model, images(2, 75, 75, 3))
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-5)
    other = build(classifier_activation=None, name="mine")
    assert other.name == "mine"
    assert other.get_layer("predictions").activation is keras.activations.linear


@builders
@pytest.mark.parametrize(
    ("pooling", "shape"), [(None, (None, None, None, 200)), ("avg", (None, 200)), ("max", (None, 200))]
)
def test_without_top(build, pooling, shape):
    model = build(include_top=False, pooling=pooling, input_shape=None)
    assert model.input_shape == (None, None, None, 3)
    assert model.output_shape == shape
    assert infer(model, images(1, 75, 123, 3)).shape == ((1, 1, 2, 200) if pooling is None else (1, 200))


@builders
@pytest.mark.parametrize("channels", [1, pytest.param(4, marks=pytest.mark.slow)])  # and 3 everywhere else
def test_channels(build, channels):
    model = build(input_shape=(75, 75, channels), classes=2)
    assert infer(model, images(1, 75, 75, channels)).shape == (1, 2)


@builders
def test_larger_and_unknown_sizes_with_top(build):
    assert build(input_shape=(96, 80, 3)).output_shape == (None, 1000)
    assert infer(build(input_shape=(None, None, 3)), images(1, 83, 76, 3)).shape == (1, 1000)


@builders
def test_input_tensor_and_its_predecessors(build):
    image = keras.Input((75, 75, 3), name="pixels")
    model = build(input_tensor=keras.layers.Rescaling(1 / 255)(image), input_shape=None, classes=2)
    assert model.inputs[0] is image
    assert infer(model, images(1, 75, 75, 3)).shape == (1, 2)


def test_inception_resnet_is_a_polynet_of_ir_units():
    a = small(structure="1 x [ir] | 2 x [ir] | 1 x [ir]")
    b = small_inception_resnet((1, 2, 1))
    assert [layer.name for layer in a.layers] == [layer.name for layer in b.layers]


def test_stochastic_paths_are_there_and_not_active():
    model = small(residual_scale=0.3, structure=ALL_MODULES)
    layers = [layer for layer in model.layers if isinstance(layer, StochasticResidualScaling)]
    assert [layer.name for layer in layers][:2] == ["stage_a_01_sum_f_g", "stage_a_02_sum_f_g_h"]
    assert len(layers) == 7
    for layer in layers:
        assert not keras.ops.convert_to_numpy(layer.active)
        assert keras.ops.convert_to_numpy(layer.scale) == pytest.approx(0.3)
        assert keras.ops.convert_to_numpy(layer.survival_probability) == pytest.approx(1.0)


@pytest.mark.slow
def test_channels_first_equals_channels_last():
    need_channels_first_convolutions()
    last = small(classes=5, structure=ALL_MODULES, include_top=True)
    randomize(last, 0)
    keras.config.set_image_data_format("channels_first")
    first = small(classes=5, structure=ALL_MODULES, input_shape=(3, 75, 75))
    assert first.input_shape == (None, 3, 75, 75)
    first.set_weights(last.get_weights())
    x = images(2, 75, 75, 3)
    np.testing.assert_allclose(infer(first, np.moveaxis(x, -1, 1)), infer(last, x), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("structure", "share_projection"),
    [pytest.param(ALL_MODULES, False, marks=pytest.mark.slow), ("1 x [ir] | 1 x [poly-3] | 1 x [ir]", True)],
)
def test_every_weight_gets_a_gradient(structure, share_projection):
    model = small(structure=structure, classes=4, classifier_activation=None, share_projection=share_projection)
    randomize(model, 0)
    found = gradients(model, images(4, 75, 75, 3), images(4, 4, seed=1))
    names = [variable.path for variable in model.trainable_variables]
    assert len(found) == len(names)
    without = [name for name, gradient in zip(names, found, strict=True) if not np.abs(gradient).max() > 0]
    assert without == []
    assert all(np.isfinite(gradient).all() for gradient in found)


def randomized(structure=ALL_MODULES, **arguments):
    model = small(structure=structure, classes=5, **arguments)
    randomize(model, 3)
    return model


@pytest.mark.slow
def test_keras_file_round_trip(tmp_path):
    model, x = randomized(), images(2, 75, 75, 3)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(infer(loaded, x), infer(model, x))
    assert [layer.name for layer in loaded.layers] == [layer.name for layer in model.layers]


@pytest.mark.slow
def test_clone_and_config_round_trip():
    structure = "1 x [2-way] | 1 x [poly-2] | 1 x [mpoly-2]"
    model = randomized(structure, residual_scale=(1.0, 0.5), share_projection=True)
    x = images(2, 75, 75, 3)
    expected = infer(model, x)
    for copy in (keras.models.clone_model(model), type(model).from_config(model.get_config())):
        copy.set_weights(model.get_weights())
        np.testing.assert_array_equal(infer(copy, x), expected)


SAVED = "1 x [2-way, 3-way] | 1 x [poly-2] | 1 x [ir]"


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A network that no test changes, and a folder with files of its weights."""
    folder = tmp_path_factory.mktemp("saved")
    model = randomized(SAVED, residual_scale=0.2)
    model.save_weights(folder / "net.weights.h5")
    model.save(folder / "net.keras")
    return model, folder


@pytest.mark.parametrize("suffix", [pytest.param(".weights.h5", marks=pytest.mark.slow), ".keras"])
def test_weights_argument(saved, suffix):
    model, folder = saved
    x = images(2, 75, 75, 3)
    path = folder / f"net{suffix}"
    # The file holds the residual factors too: what the builder was told makes way for what was trained.
    loaded = small(structure=SAVED, classes=5, weights=path)
    np.testing.assert_array_equal(infer(loaded, x), infer(model, x))
    features = small(structure=SAVED, include_top=False, pooling="avg", weights=str(path))
    pooled = infer(keras.Model(model.input, model.get_layer("avg_pool").output), x)
    np.testing.assert_array_equal(infer(features, x), pooled)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        pytest.param(
            {"width": 0.25},
            "its 'stem_conv3/0' is 3 x 3 x 8 x 8, the network's variable 'stem_conv3/kernel' 3 x",
            marks=pytest.mark.slow,
        ),
        ({"structure": SAVED.replace("3-way", "mpoly-3")}, "its 'stage_a_02_"),
        ({"structure": SAVED.replace(", 3-way", "")}, "has no variable in the network"),
        pytest.param(
            {"input_shape": (75, 75, 1)},
            "its 'stem_conv1/0' is 3 x 3 x 3 x 8, the network's variable",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_weights_of_another_network_are_refused(saved, arguments, message):
    _, folder = saved
    with pytest.raises(ValueError, match="polynet_keras that is not of the network 'polynet'") as info:
        small(**{"structure": SAVED, "classes": 5, "weights": folder / "net.weights.h5", **arguments})
    assert message in str(info.value)


@pytest.mark.slow
def test_weights_of_another_sum_of_the_same_blocks_are_refused(tmp_path):
    """The convolutions, the normalizations and all shapes are equal: only the names of the sums tell."""
    path = tmp_path / "net.weights.h5"
    small(structure="1 x [I + F + HGF] | 1 x [ir] | 1 x [ir]").save_weights(path)
    with pytest.raises(ValueError, match="its 'stage_a_01_sum_f_hgf/0' of .* has no variable in the network"):
        small(structure="1 x [I + GF + HGF] | 1 x [ir] | 1 x [ir]", weights=path)


def test_weights_of_other_classes_leave_a_fresh_head(saved, caplog):
    model, folder = saved
    loaded = small(structure=SAVED, classes=6, weights=folder / "net.weights.h5")
    assert "the classifier of the weights has other classes than the network 'polynet' and was left out" in caplog.text
    assert loaded.output_shape == (None, 6)
    x = images(2, 75, 75, 3)
    features = [keras.Model(m.input, m.get_layer("avg_pool").output) for m in (model, loaded)]
    np.testing.assert_array_equal(infer(features[0], x), infer(features[1], x))


@pytest.mark.slow
def test_headless_weights_do_not_fill_a_head(tmp_path):
    path = tmp_path / "net.weights.h5"
    small(include_top=False).save_weights(path)
    with pytest.raises(ValueError, match="it has no 'predictions/0' for the network's variable 'predictions/kernel'"):
        small(weights=path)


def test_weights_that_cannot_be_read(tmp_path):
    broken = tmp_path / "broken.weights.h5"
    broken.write_bytes(b"not HDF5")
    archive = tmp_path / "broken.keras"
    archive.write_bytes(b"not a zip")
    for path in (broken, archive):
        with pytest.raises(ValueError, match="is not a checkpoint; expected a .weights.h5 or .keras file"):
            small(weights=path)
    for weights, message in [
        (tmp_path / "none.weights.h5", "is not a file"),
        (tmp_path, "is not a file"),
        (__file__, "is not a checkpoint"),
        (3, "weights=3 must be None, one of 'imagenet', .*, or the path of a weights file"),
        ("imagenet", "are of a network with structure"),
    ]:
        with pytest.raises(ValueError, match=message):
            small(weights=weights)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"structure": "resnet"}, "structure='»resnet', column 1: unknown structure"),
        ({"structure": "1 x [I + G] | 1 x [ir] | 1 x [ir]"}, "G comes where F is due"),
        ({"structure": "1 x [I + F + H] | 1 x [ir] | 1 x [ir]"}, "in the order F, G, H"),
        ({"width": -1}, "width=-1 must be a finite number > 0"),
        ({"width": 0}, "width=0 must be"),
        ({"width": float("nan")}, "width=nan must be"),
        ({"width": "wide"}, "width='wide' must be"),
        ({"classes": 0}, "classes=0 must be an integer of at least 1"),
        ({"classes": 2.5}, "classes=2.5 must be"),
        ({"include_top": "no"}, "include_top='no' must be True or False"),
        ({"share_projection": None}, "share_projection=None must be"),
        ({"pooling": "mean"}, "pooling='mean' must be None, 'avg' or 'max'"),
        ({"classifier_activation": "softmix"}, "classifier_activation='softmix' must be"),
        ({"residual_scale": -1.0}, "residual_scale=-1.0 must be"),
        ({"residual_scale": (1, 2, 3, 4)}, "has 4 values"),
        ({"input_shape": (74, 75, 3)}, "sides of at least 75 px"),
        ({"input_shape": (75, 75, 2)}, "that is 2 channels"),
        ({"input_shape": (75, 75)}, "input_shape must be"),
        ({"input_shape": (75.0, 75, 3)}, "sides of at least 75 px"),
        ({"input_shape": 331}, "input_shape=331 must be a tuple"),
        ({"name": "a/b"}, "name='a/b' must be a text without '/'"),
        ({"name": 3}, "name=3 must be"),
        ({"input_tensor": "image"}, "input_tensor must be a Keras tensor"),
    ],
)
def test_bad_arguments(arguments, message, monkeypatch):
    monkeypatch.setattr(keras.layers.Layer, "__init__", lambda *_, **__: pytest.fail("a layer was built"))
    with pytest.raises(ValueError, match=r".") as info:
        small(**arguments)
    assert message in str(info.value)


def test_input_tensor_is_checked():
    with pytest.raises(ValueError, match=r"input_tensor must be .* sides of at least 75 px"):
        small(input_tensor=keras.Input((32, 32, 3)), input_shape=None)
    with pytest.raises(ValueError, match="is not that of input_tensor"):
        small(input_tensor=keras.Input((96, 96, 3)))


def test_layer_names_of_all_modules_are_golden():
    check_golden("layer_names_all_modules.txt", small(structure=ALL_MODULES))


@pytest.mark.slow
def test_g5():
    """One build serves the checks that need the full net: names, parameters, the share of each kind."""
    model = PolyNet(weights=None)
    assert model.input_shape == (None, 331, 331, 3)
    check_golden("layer_names_polynet_g5.txt", model)
    trainable = {variable.path: int(np.prod(variable.shape)) for variable in model.trainable_variables}
    assert sum(trainable.values()) == 95_366_600
    assert (
        sum(size for path, size in trainable.items() if path.endswith("_bn/gamma") or path.endswith("_bn/beta"))
        == 361_088
    )
    assert sum(size for path, size in trainable.items() if path.startswith("predictions/")) == 2_049_000


@pytest.mark.slow
@pytest.mark.parametrize(
    ("depths", "parameters"), [((5, 10, 5), 31_574_440), ((10, 20, 10), 54_048_840), ((20, 56, 20), 117_766_536)]
)
def test_parameters_of_inception_resnets(depths, parameters):
    model = InceptionResNet(depths, weights=None)
    assert sum(int(np.prod(variable.shape)) for variable in model.trainable_variables) == parameters


def check_golden(file, model):
    """Compares layer names and types with the golden list; UPDATE_GOLDEN=1 in the environment writes it."""
    found = "".join(f"{layer.name} {type(layer).__name__}\n" for layer in model.layers)
    if os.environ.get("UPDATE_GOLDEN"):
        (GOLDEN / file).write_text(found)
    assert found.splitlines() == (GOLDEN / file).read_text().splitlines()


@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
@pytest.mark.parametrize("batched", [True, False])
def test_preprocess_input(data_format, batched):
    pixels = np.random.default_rng(0).integers(0, 256, (2, 5, 4, 3)).astype("uint8")
    expected = (pixels / 255.0 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    if data_format == "channels_first":
        pixels, expected = np.moveaxis(pixels, -1, 1), np.moveaxis(expected, -1, 1)
    if not batched:
        pixels, expected = pixels[0], expected[0]
    before = pixels.copy()
    for x in (pixels, pixels.astype("float32"), keras.ops.convert_to_tensor(pixels)):
        found = polynet_keras.preprocess_input(x, data_format)
        assert isinstance(found, np.ndarray) == isinstance(x, np.ndarray)
        np.testing.assert_allclose(keras.ops.convert_to_numpy(found), expected, atol=1e-5)
    np.testing.assert_array_equal(pixels, before)
    assert polynet_keras.preprocess_input(pixels.astype("float16"), data_format).dtype == "float16"


@pytest.mark.parametrize(
    ("shape", "data_format", "message"),
    [((5, 5, 1), None, "3 channels"), ((5, 5), None, "3-D or 4-D"), ((5, 5, 3), "last", "data_format='last' must be")],
)
def test_preprocess_input_refuses(shape, data_format, message):
    with pytest.raises(ValueError, match=message):
        polynet_keras.preprocess_input(np.zeros(shape, "float32"), data_format)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (np.full((4, 4, 3), 0.5, "float32"), "no value above 1: they look scaled"),
        (np.full((4, 4, 3), -1.0, "float32"), "below 0 and none that is large: they look normalized"),
        (np.full((4, 4, 3), 65535, "int32"), "far outside of that range, or not finite"),
        (np.full((4, 4, 3), np.nan, "float32"), "far outside of that range, or not finite"),
    ],
)
def test_preprocess_input_warns_of_an_impossible_range_once(x, message):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        for batch in (x, x / 2, keras.ops.convert_to_tensor(x)):
            polynet_keras.preprocess_input(batch)
    ours = [warning for warning in caught if "preprocess_input" in str(warning.message)]
    assert len(ours) == 1
    assert message in str(ours[0].message)
    assert ours[0].filename == __file__


def test_preprocess_input_warns_of_no_possible_range():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for value in (
            np.zeros((4, 4, 3)),
            np.ones((4, 4, 3), "uint8"),
            np.full((4, 4, 3), 254.5),
            np.zeros((0, 4, 4, 3)),
            np.linspace(-20, 270, 48).reshape(4, 4, 3),  # a bicubic resize goes beyond what it was given
        ):
            polynet_keras.preprocess_input(value)
        keras.layers.Lambda(polynet_keras.preprocess_input)(keras.Input((4, 4, 3)))


def test_decode_predictions_is_that_of_keras(monkeypatch):
    from keras.src.applications import imagenet_utils

    from polynet_keras.data.imagenet import CLASS_INDEX_FILE

    content = CLASS_INDEX_FILE.read_bytes()
    assert hashlib.md5(content).hexdigest() == "c2c37ea517e94d9795004a39431a14cb"  # what Keras checks its file with
    monkeypatch.setattr(imagenet_utils, "CLASS_INDEX", json.loads(content))  # Keras fetches it, tests are offline
    scores = np.random.default_rng(0).random((3, 1000)).astype("float32")
    for top in (1, 5, 1000):
        found = polynet_keras.decode_predictions(keras.ops.convert_to_tensor(scores), top=top)
        assert found == keras.applications.imagenet_utils.decode_predictions(scores, top=top)
    scores = np.zeros((1, 1000), "float32")
    scores[0, [1, 388]] = 0.25, 0.75
    assert polynet_keras.decode_predictions(scores, top=2) == [
        [("n02510455", "giant_panda", 0.75), ("n01443537", "goldfish", 0.25)]
    ]


@pytest.mark.parametrize("shape", [(1, 10), (1000,), (1, 1, 1000)])
def test_decode_predictions_refuses(shape):
    with pytest.raises(ValueError, match=r"of the shape \(batch, 1000\); got"):
        polynet_keras.decode_predictions(np.zeros(shape))
    with pytest.raises(ValueError, match="array of shape|samples, 1000"):
        keras.applications.imagenet_utils.decode_predictions(np.zeros(shape))


@pytest.mark.parametrize("top", [0, 1001, 2.0, True])
def test_decode_predictions_refuses_top(top):
    with pytest.raises(ValueError, match=f"top={top} must be an integer from 1 to 1000"):
        polynet_keras.decode_predictions(np.zeros((1, 1000)), top=top)


def test_numpys_integers(tmp_path):
    """As `len(set(labels))` of an array, or a shape that was computed: they must not end up in the saved config."""
    side = np.int64(75)
    model = PolyNet(
        weights=None,
        structure="1 x [ir] | 1 x [ir] | 1 x [ir]",
        width=np.float32(0.1),
        input_shape=[side, side, np.int32(3)],
        classes=np.int64(4),
    )
    assert (model.input_shape, model.output_shape) == ((None, 75, 75, 3), (None, 4))
    json.dumps(model.get_config())
