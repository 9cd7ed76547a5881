"""Checkpoints into small and into full networks: whole or not at all, and both sides of a difference are named."""

from pathlib import Path

import h5py
import keras
import numpy as np
import pytest

from polynet_keras import PolyNet
from polynet_keras.layers import StochasticResidualScaling
from polynet_keras.models.residual_scale import linear
from polynet_keras.pretrained import conversion, load_weights_file
from polynet_keras.pretrained.conversion import DifferentNetworkError, load_checkpoint
from polynet_keras.pretrained.formats import read_checkpoint
from polynet_keras.pretrained.stored_arrays import TABLES, Checkpoint, Format

GOLDEN = Path(__file__).parents[1] / "golden"
PUBLISHED = (Format.TF2CV, Format.CADENE, Format.PYTORCHCV)


def two_layers():
    inputs = keras.Input((4,))
    outputs = keras.layers.Dense(4, name="second")(keras.layers.Dense(4, name="first")(inputs))
    return keras.Model(inputs, outputs)


def test_layers_are_found_by_name_not_by_place(tmp_path):
    """Keras fills layers by their number in the file: a swap of equal shapes would go unnoticed."""
    path = tmp_path / "net.weights.h5"
    model = two_layers()
    model.save_weights(path)
    with h5py.File(path, "r+") as file:
        file["layers/dense/vars"].attrs["name"] = "second"
        file["layers/dense_1/vars"].attrs["name"] = "first"
    first, second = (model.get_layer(name).get_weights() for name in ("first", "second"))
    load_weights_file(model, path)
    for a, b in zip(model.get_layer("first").get_weights(), second, strict=True):
        np.testing.assert_array_equal(a, b)
    for a, b in zip(model.get_layer("second").get_weights(), first, strict=True):
        np.testing.assert_array_equal(a, b)


def one_layer(dtype):
    return keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, dtype=dtype, name="only")])


def numbers_of(model):
    return [keras.ops.convert_to_numpy(keras.ops.cast(w, "float32")) for w in model.weights]


@pytest.mark.parametrize("suffix", ["weights.h5", "keras"])
@pytest.mark.parametrize("policy", ["bfloat16", "float16", "mixed_bfloat16", "mixed_float16", "float32"])
def test_files_of_every_precision_that_keras_writes(tmp_path, policy, suffix):
    """Into float32, and into their own precision, each number is the one that was saved."""
    model, path = one_layer(policy), tmp_path / f"net.{suffix}"
    model.set_weights([np.random.default_rng(0).normal(size=w.shape).astype("float32") for w in model.weights])
    (model.save_weights if suffix == "weights.h5" else model.save)(path)
    for other in ("float32", policy):
        loaded = one_layer(other)
        load_weights_file(loaded, path)
        for expected, found in zip(numbers_of(model), numbers_of(loaded), strict=True):
            np.testing.assert_array_equal(expected, found)


@pytest.mark.parametrize("kind", ["float16", "bfloat16", "float8_e4m3fn", "float8_e5m2", "float32", "float64"])
def test_state_dicts_of_every_precision(tmp_path, kind):
    torch = pytest.importorskip("torch", reason="writes the .pth files (extra `parity`)")
    tensor = torch.tensor([1.0, -0.5, 448.0, 0.001953125]).to(getattr(torch, kind))
    torch.save({"stem.conv1.0.bn.weight": tensor}, tmp_path / "net.pth")
    (array,) = read_checkpoint(tmp_path / "net.pth").arrays.values()
    assert array.dtype == ("float64" if kind == "float64" else "float32")
    np.testing.assert_array_equal(array, tensor.double().numpy())


def no_dtype(dataset, group):
    del dataset.attrs["dtype"]


def another_dtype(dataset, group):
    dataset.attrs["dtype"] = "float8_e4m3fn"


def dtype_that_is_no_text(dataset, group):
    dataset.attrs["dtype"] = np.zeros((3, 3))


def bytes_in_fours(dataset, group):
    del group["0"]
    group.create_dataset("0", data=np.zeros((4, 3), "V4")).attrs["dtype"] = "bfloat16"


def no_dtype_of_numpy(dataset, group):
    del group["0"]
    h5py.h5d.create(group.id, b"0", h5py.h5t.UNIX_D32LE, h5py.h5s.create_simple((4, 3)))


@pytest.mark.parametrize("damage", [no_dtype, another_dtype, dtype_that_is_no_text, bytes_in_fours, no_dtype_of_numpy])
def test_bytes_that_do_not_say_what_they_are_are_refused(tmp_path, damage):
    path = tmp_path / "net.weights.h5"
    one_layer("bfloat16").save_weights(path)
    with h5py.File(path, "r+") as file:
        group = file["layers/dense/vars"]
        damage(group["0"], group)
    with pytest.raises(ValueError, match=f"^weights='{path}' .*'layers/dense/vars/0' is not an array of numbers$"):
        load_weights_file(one_layer("float32"), path)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_numbers_that_the_network_cannot_hold_are_refused(tmp_path, dtype):
    """They would become infinite."""
    model, path = one_layer("float32"), tmp_path / "net.weights.h5"
    model.set_weights([np.full((4, 3), 3.4e38, "float32"), np.zeros(3, "float32")])
    model.save_weights(path)
    loaded = one_layer(dtype)
    before = numbers_of(loaded)
    with pytest.raises(
        DifferentNetworkError, match=f"'only/0' has the value 3.4e.38, which the {dtype} of .*'only/kernel'"
    ):
        load_weights_file(loaded, path)
    for expected, found in zip(before, numbers_of(loaded), strict=True):
        np.testing.assert_array_equal(expected, found)


@pytest.mark.parametrize("key", ["only/0", "only/1"])
def test_a_bool_is_no_weight(key):
    """Only the switch of stochastic depth was one: `test_files_whose_switch_is_a_bool`."""
    arrays = {"only/0": np.zeros((4, 3), "float32"), "only/1": np.zeros(3, "float32")}
    arrays[key] = arrays[key].astype(bool)
    with pytest.raises(DifferentNetworkError, match=f"its '{key}' has the dtype bool, .* float32$"):
        load_checkpoint(one_layer("float32"), Checkpoint(Format.KERAS, arrays))


def test_of_stochastic_depth_the_switch_alone_may_be_a_bool():
    inputs = [keras.Input((4,)), keras.Input((4,))]
    model = keras.Model(inputs, StochasticResidualScaling(name="sum")(inputs))
    names = [variable.name for variable in model.get_layer("sum").weights]
    plain = {f"sum/{number}": np.ones(w.shape, "float32") for number, w in enumerate(model.weights)}
    for number, name in enumerate(names):
        arrays = plain | {f"sum/{number}": np.ones(model.weights[number].shape, bool)}
        if name == "active":
            load_checkpoint(model, Checkpoint(Format.KERAS, arrays))
        else:
            with pytest.raises(DifferentNetworkError, match=f"its 'sum/{number}' has the dtype bool, .*'sum/{name}'"):
                load_checkpoint(model, Checkpoint(Format.KERAS, arrays))
    assert sorted(names) == ["active", "scale", "survival_probability"]


@pytest.mark.parametrize(("stored", "fits"), [("int32", True), ("int8", True), ("int64", False), ("bool", False)])
def test_whole_numbers_are_taken_if_the_variable_holds_them_all(stored, fits):
    class Counter(keras.layers.Layer):
        def build(self, input_shape):
            self.count = self.add_weight(shape=(), dtype="int32", initializer="zeros", trainable=False, name="count")

        def call(self, inputs):
            return inputs

    model = keras.Sequential([keras.Input((4,)), Counter(name="counter")])
    checkpoint = Checkpoint(Format.KERAS, {"counter/0": np.asarray(1, stored)})
    if fits:
        load_checkpoint(model, checkpoint)
        assert int(model.weights[0]) == 1
    else:
        with pytest.raises(DifferentNetworkError, match=f"has the dtype {stored}, .* int32$"):
            load_checkpoint(model, checkpoint)


def test_tables_name_every_layer_of_g5_once():
    """Of the list that `test_applications.test_g5` holds the built network to."""
    lines = [line.split() for line in (GOLDEN / "layer_names_polynet_g5.txt").read_text().splitlines()]
    layers = {name for name, kind in lines if kind in ("Conv2D", "BatchNormalization", "Dense")}
    kinds = {"InputLayer", "ReLU", "MaxPooling2D", "Concatenate", "GlobalAveragePooling2D"}
    assert {kind for name, kind in lines if name not in layers} == kinds | {"StochasticResidualScaling"}
    for format_ in PUBLISHED:
        table = TABLES[format_]()
        assert len(table) == len(layers) == 955
        assert set(table.values()) == layers


@pytest.fixture(scope="module")
def g5():
    """The full network, without a head's 1000 classes being special: built once, loaded many times."""
    return PolyNet(weights=None, classes=1000, residual_scale=0.5)


def checkpoint_of(model, format_, fill=None):
    """A published checkpoint whose arrays all hold `fill`, or 0, 1, 2, … in the order of the table."""
    variables = conversion._variables(model)
    table = conversion._table(Checkpoint(format_, {}), model)
    arrays = {
        key: np.full(variables[name].shape, number if fill is None else fill, "float32")
        for number, (key, name) in enumerate(table.items())
    }
    return Checkpoint(format_, arrays)


@pytest.mark.slow
@pytest.mark.parametrize("format_", PUBLISHED)
def test_published_arrays_arrive_where_the_table_says(g5, format_):
    report = load_checkpoint(g5, checkpoint_of(g5, format_))
    assert (report.format, report.arrays, report.parameters, report.head) == (format_, 2567, 95_727_688, "loaded")
    variables = conversion._variables(g5)
    found = [float(keras.ops.max(variables[n])) for n in conversion._table(Checkpoint(format_, {}), g5).values()]
    assert found == list(range(2567))


@pytest.mark.slow
def test_published_files_bring_the_released_residual_factors(g5):
    sums = [layer for layer in g5.layers if isinstance(layer, StochasticResidualScaling)]
    for layer in sums:
        layer.scale.assign(np.full(layer.scale.shape, 0.5))
        layer.active.assign(True)
    load_checkpoint(g5, checkpoint_of(g5, Format.CADENE))
    for layer, survival in zip(sums, linear(1.0, 0.7, 40), strict=True):
        np.testing.assert_allclose(layer.survival_probability, survival, rtol=1e-6)
        np.testing.assert_array_equal(layer.scale, 1.0)
        assert not keras.ops.convert_to_numpy(layer.active)


@pytest.mark.slow
@pytest.mark.parametrize("format_", PUBLISHED)
def test_a_difference_is_an_error_and_changes_nothing(g5, format_):
    separator, kernel = ("/", "kernel") if format_ is Format.TF2CV else (".", "weight")
    load_checkpoint(g5, checkpoint_of(g5, format_, fill=1.0))
    checkpoint = checkpoint_of(g5, format_, fill=2.0)
    (source,) = (source for source, ours in TABLES[format_]().items() if ours == "stage_b_02_g_branch1_conv2")
    key = f"{source}{separator}{kernel}"
    array = checkpoint.arrays[key]
    shape, other = "1 x 7 x 128 x 160", "7 x 1 x 128 x 160"
    for change, message in (
        ({key: np.moveaxis(array, 0, 1)}, f"its '{key}' is {other}, .*conv2/kernel' {shape}"),
        ({key: None}, f"it has no '{key}' for .*conv2/kernel' of {shape}"),
        ({"more": array}, f"its 'more' of {shape} has no variable in the network"),
    ):
        arrays = {k: a for k, a in {**checkpoint.arrays, **change}.items() if a is not None}
        with pytest.raises(DifferentNetworkError, match=message):
            load_checkpoint(g5, Checkpoint(format_, arrays))
    assert all(float(keras.ops.max(variable)) == 1.0 for variable in g5.trainable_variables)


@pytest.mark.slow
@pytest.mark.parametrize("format_", PUBLISHED)
def test_other_classes_keep_a_fresh_head_and_the_log_says_so(g5, format_, caplog):
    checkpoint = checkpoint_of(g5, format_, fill=2.0)
    model = PolyNet(weights=None, classes=7)
    head = model.get_layer("predictions").get_weights()
    report = load_checkpoint(model, checkpoint)
    assert report.head == "fresh"
    assert "has other classes than the network 'polynet' and was left out" in caplog.text
    for before, after in zip(head, model.get_layer("predictions").get_weights(), strict=True):
        np.testing.assert_array_equal(before, after)
    assert float(keras.ops.max(model.get_layer("stem_conv1").kernel)) == 2.0
    headless = PolyNet(weights=None, include_top=False)
    assert load_checkpoint(headless, checkpoint).head == "left out"


@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments", [{"structure": "ir-5-10-5"}, {"width": 0.25}, {"share_projection": True}, {"input_shape": (75, 75, 1)}]
)
def test_published_weights_of_another_network_are_refused(g5, arguments):
    model = PolyNet(weights=None, **arguments)
    with pytest.raises(DifferentNetworkError, match=r"of tf2cv that is not of the network 'polynet': (its|it)"):
        load_checkpoint(model, checkpoint_of(g5, Format.TF2CV))
