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
from polynet_keras.pretrained.formats import TABLES, Checkpoint, Format

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
    shape, other = r"\(1, 7, 128, 160\)", r"\(7, 1, 128, 160\)"
    for change, message in (
        ({key: np.moveaxis(array, 0, 1)}, f"its '{key}' has the shape {other}, .*conv2/kernel' {shape}"),
        ({key: None}, f"it has no '{key}' for .*conv2/kernel' of shape {shape}"),
        ({"more": array}, f"its 'more' of shape {shape} has no variable in the network"),
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
