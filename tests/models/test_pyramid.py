"""The levels of the pyramid, and that their places are where they are said to be."""

import re

import keras
import numpy as np
import pytest

from polynet_keras import InceptionResNet, PolyNet
from polynet_keras.deployment.fusing import fuse
from polynet_keras.models.pyramid import feature_pyramid
from tests.reference import randomize

LEVELS = ("P1", "P2", "P3", "P4", "P5")
STRUCTURE = "2 x [ir] | 1 x [poly-2] | 1 x [ir]"


def all_maps(model):
    return keras.Model(model.input, {name: level.output for name, level in feature_pyramid(model).items()})


def maps_of(model, x):
    """Called, not compiled: for one image that takes less time."""
    return keras.tree.map_structure(keras.ops.convert_to_numpy, model(x, training=False))


def built(height, width, **arguments):
    arguments = {"structure": STRUCTURE, "width": 0.05, **arguments}
    model = PolyNet(include_top=False, weights=None, input_shape=(height, width, 3), **arguments)
    randomize(model, 0)
    return model


def images(height, width, seed=0):
    return np.random.default_rng(seed).normal(size=(1, height, width, 3)).astype("float32")


def test_sizes_and_channels_of_the_released_nets_image():
    """As the design's table of facts has them, and the comments of the stem's table."""
    levels = feature_pyramid(InceptionResNet((1, 1, 1), weights=None))
    assert tuple(levels) == LEVELS
    assert [level.channels for level in levels.values()] == [64, 192, 384, 1152, 2048]
    assert [level.output.shape[1] for level in levels.values()] == [163, 79, 39, 19, 9]
    assert [level.stride for level in levels.values()] == [2, 4, 8, 16, 32]


@pytest.mark.parametrize(
    "side", [75, 100, *(pytest.param(side, marks=pytest.mark.slow) for side in (139, 224, 299)), 331]
)
def test_how_many_places_a_side_has(side):
    levels = feature_pyramid(
        PolyNet(include_top=False, weights=None, input_shape=(side, 75, 1), structure=STRUCTURE, width=0.05)
    )
    for level in levels.values():
        assert level.output.shape[1] == (side - 1 - 2 * level.offset) // level.stride + 1


def test_places_are_as_far_from_both_borders():
    """Of a network whose kernels are symmetric, the maps of a mirrored image are mirrored: their middle is the image's.

    So the first place is half of the map's length before the middle.
    """
    model = built(139, 139)
    for layer in model.layers:
        if isinstance(layer, keras.layers.Conv2D):
            kernel = keras.ops.convert_to_numpy(layer.kernel)
            layer.kernel.assign((kernel + kernel[::-1] + kernel[:, ::-1] + kernel[::-1, ::-1]) / 4)
    x, maps = images(139, 139), all_maps(model)
    straight, mirrored = maps_of(maps, x), maps_of(maps, np.ascontiguousarray(x[:, ::-1, ::-1]))
    for name, level in feature_pyramid(model).items():
        np.testing.assert_allclose(mirrored[name][:, ::-1, ::-1], straight[name], atol=1e-4)
        places = straight[name].shape[1]
        assert level.offset == 138 / 2 - level.stride * (places - 1) / 2


@pytest.mark.slow
def test_a_shift_by_the_stride_is_one_place():
    """Where the zeros at the borders are not seen: up to 134 px from them, by the kernels of the network's tables."""
    height, border = 491, 134
    model = built(height, 75)
    x, maps = images(height + 32, 75), all_maps(model)
    before = maps_of(maps, x[:, :height])
    for name, level in feature_pyramid(model).items():
        after = maps_of(maps, x[:, level.stride : level.stride + height])[name]
        edge = -(-border // level.stride)
        inner = slice(edge, after.shape[1] - edge - 1)
        assert inner.stop - inner.start >= 3
        expected = before[name][:, edge + 1 : after.shape[1] - edge]
        np.testing.assert_allclose(after[:, inner], expected, atol=1e-4)
        assert np.abs(after[:, inner] - before[name][:, inner]).max() > 0.1


@pytest.mark.slow
def test_the_last_level_is_what_is_pooled():
    model = built(75, 75)
    pooled = PolyNet(
        include_top=False, weights=None, input_shape=(75, 75, 3), structure=STRUCTURE, width=0.05, pooling="avg"
    )
    pooled.set_weights(model.get_weights())
    x = images(75, 75)
    found = maps_of(all_maps(model), x)["P5"]
    np.testing.assert_allclose(found.mean(axis=(1, 2)), maps_of(pooled, x), rtol=1e-5)
    assert (found >= 0).all()


@pytest.mark.slow
def test_with_a_weights_file_and_with_the_top(tmp_path):
    whole = PolyNet(weights=None, input_shape=(75, 75, 3), structure=STRUCTURE, width=0.05, classes=3)
    randomize(whole, 1)
    whole.save_weights(tmp_path / "net.weights.h5")
    part = PolyNet(
        False, tmp_path / "net.weights.h5", input_shape=(75, 75, 3), structure=STRUCTURE, width=0.05, classes=3
    )
    x = images(75, 75)
    one, other = (maps_of(all_maps(model), x) for model in (whole, part))
    for name in LEVELS:
        np.testing.assert_allclose(other[name], one[name], rtol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("shared", ["duplicate", "affine"])
def test_of_a_fused_network_and_fused_itself(shared):
    model = built(75, 75)
    x = images(75, 75)
    expected = maps_of(all_maps(model), x)
    for fused in (fuse(all_maps(model), shared), all_maps(fuse(model, shared))):
        found = maps_of(fused, x)
        assert sorted(found) == list(LEVELS)
        for name in LEVELS:
            scale = np.abs(expected[name]).max()
            np.testing.assert_allclose(found[name], expected[name], atol=1e-5 * scale)


def test_a_saved_and_loaded_model_has_them(tmp_path):
    model = built(75, 75)
    model.save(tmp_path / "net.keras")
    x = images(75, 75)
    loaded = all_maps(keras.saving.load_model(tmp_path / "net.keras"))
    found = maps_of(loaded, x)
    for name, expected in maps_of(all_maps(model), x).items():
        np.testing.assert_array_equal(found[name], expected)


def test_a_network_that_is_cut_has_fewer():
    model = built(75, 75)
    part = keras.Model(model.inputs, feature_pyramid(model)["P4"].output)
    assert tuple(feature_pyramid(part)) == LEVELS[:4]


def test_the_hundredth_unit_is_behind_the_others():
    x = image = keras.Input((75, 75, 1))
    for unit in (98, 99, 100, 101):
        x = keras.layers.ReLU(name=f"stage_a_{unit:02d}_relu")(x)
    (level,) = feature_pyramid(keras.Model(image, x)).values()
    assert level.output is x


@pytest.mark.parametrize("holds", [True, False])
def test_other_models(holds):
    inside = built(75, 75) if holds else keras.Sequential([keras.Input((75, 75, 3)), keras.layers.Conv2D(4, 3)])
    model = keras.Sequential([keras.Input((75, 75, 3)), inside], name="mine")
    message = "model 'mine' has no layer of a PolyNet; expected what PolyNet or InceptionResNet returns. Of a model"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
        feature_pyramid(model)
    if holds:
        assert tuple(feature_pyramid(model.get_layer("polynet"))) == LEVELS
