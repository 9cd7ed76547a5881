"""What the builders' own tests cannot make: a file whose layers stand in another order."""

import h5py
import keras
import numpy as np
import pytest

from polynet_keras.pretrained import load_weights_file


def two_layers():
    inputs = keras.Input((4,))
    outputs = keras.layers.Dense(4, name="second")(keras.layers.Dense(4, name="first")(inputs))
    return keras.Model(inputs, outputs)


def test_same_layers_in_another_order_are_refused(tmp_path):
    """Keras fills layers by their number in the file: a swap of equal shapes would go unnoticed."""
    path = tmp_path / "net.weights.h5"
    model = two_layers()
    model.save_weights(path)
    load_weights_file(model, path)
    with h5py.File(path, "r+") as file:
        file["layers/dense/vars"].attrs["name"] = "second"
        file["layers/dense_1/vars"].attrs["name"] = "first"
    before = model.get_weights()
    with pytest.raises(ValueError, match="its layer 'second' stands where the network has 'first'"):
        load_weights_file(model, path)
    for a, b in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_more_than_ten_layers_of_a_class_are_in_order(tmp_path):
    inputs = x = keras.Input((4,))
    for number in range(12):
        x = keras.layers.Dense(4, name=f"layer{number}")(x)
    model = keras.Model(inputs, x)
    model.save_weights(tmp_path / "net.weights.h5")
    expected = model.get_weights()
    model.set_weights([np.zeros_like(value) for value in expected])
    load_weights_file(model, tmp_path / "net.weights.h5")
    for a, b in zip(expected, model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
