import keras
import numpy as np
import pytest

from polynet_keras.layers import ChannelSplit


@pytest.mark.parametrize(("axis", "shape"), [(-1, (2, 3, 4, 6)), (3, (2, 3, 4, 6)), (1, (2, 6, 3, 4))])
def test_parts_are_those_of_numpy(axis, shape):
    x = np.arange(np.prod(shape), dtype="float32").reshape(shape)
    parts = ChannelSplit([1, 3, 2], axis)(x)
    for part, expected in zip(parts, np.split(x, [1, 4], axis), strict=True):
        np.testing.assert_array_equal(keras.ops.convert_to_numpy(part), expected)


def test_the_last_axis_is_split_by_default():
    assert [part.shape for part in ChannelSplit([2, 4])(np.zeros((1, 3, 4, 6), "float32"))] == [
        (1, 3, 4, 2),
        (1, 3, 4, 4),
    ]


def test_a_symbolic_call_gives_the_shapes_and_the_compute_dtype():
    parts = ChannelSplit([1, 3, 2], 1, dtype="mixed_float16")(keras.Input((6, None, 4)))
    assert [part.shape for part in parts] == [(None, 1, None, 4), (None, 3, None, 4), (None, 2, None, 4)]
    assert {part.dtype for part in parts} == {"float16"}


def test_a_model_comes_back_from_its_file(tmp_path):
    inputs = keras.Input((6, 4, 4))
    model = keras.Model(inputs, ChannelSplit(np.array([2, 4]), axis=1, name="split")(inputs))
    model.save(tmp_path / "split.keras")
    loaded = keras.saving.load_model(tmp_path / "split.keras")
    config = loaded.get_layer("split").get_config()
    assert (config["sizes"], config["axis"], config["name"]) == ([2, 4], 1, "split")
    assert {type(size) for size in model.get_layer("split").sizes} == {int}  # of an array too
    assert keras.saving.get_registered_name(ChannelSplit) == "polynet_keras>ChannelSplit"  # files say it
    x = np.random.default_rng(0).normal(size=(2, 6, 4, 4)).astype("float32")
    for a, b in zip(model(x), loaded(x), strict=True):
        np.testing.assert_array_equal(keras.ops.convert_to_numpy(a), keras.ops.convert_to_numpy(b))


@pytest.mark.parametrize("sizes", [[1, 2], [6, 1], []])
def test_other_sizes_than_the_channels_are_refused(sizes):
    with pytest.raises(ValueError, match=rf"add up to {sum(sizes)}; the input has 6 channels$"):
        ChannelSplit(sizes)(np.zeros((1, 3, 4, 6), "float32"))


class Narrowed:
    """What a PyTorch tensor does here: `torch.Tensor.narrow(dim, start, length)`."""

    def __init__(self, values):
        self.values = values

    def narrow(self, dim, start, length):
        return np.take(self.values, range(start, start + length), axis=dim)


@pytest.mark.parametrize("axis", [1, -1])
def test_on_pytorch_parts_are_narrowed(axis, monkeypatch):
    """Sizes are numbers there, for `torch.export`; tests/test_backends.py has the real ones."""
    x = np.arange(6 * 6.0).reshape(1, 6, 1, 6)
    layer = ChannelSplit([1, 3, 2], axis)
    monkeypatch.setattr(keras.backend, "backend", lambda: "torch")
    for part, expected in zip(layer.call(Narrowed(x)), np.split(x, [1, 4], axis), strict=True):
        np.testing.assert_array_equal(part, expected)
