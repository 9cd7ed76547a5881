"""Every named module against a float64 NumPy evaluation of its polynomial, written out by hand."""

import keras
import numpy as np
import pytest

from polynet_keras.models import PolyInception, Polynomial
from polynet_keras.models.polynomial import NAMED
from tests.reference import batch_norm, conv2d, randomize, relu

CHANNELS = {"a": 384, "b": 1152, "c": 2048}

# The kernels of each branch, in order, from the published model.
BRANCHES = {
    "a": [[(1, 1, 384, 32), (3, 3, 32, 48), (3, 3, 48, 64)], [(1, 1, 384, 32), (3, 3, 32, 32)], [(1, 1, 384, 32)]],
    "b": [[(1, 1, 1152, 128), (1, 7, 128, 160), (7, 1, 160, 192)], [(1, 1, 1152, 192)]],
    "c": [[(1, 1, 2048, 192), (1, 3, 192, 224), (3, 1, 224, 256)], [(1, 1, 2048, 192)]],
}

# y(application, input) evaluates one block and its projection; what is inside is the formula of the paper, with the
# ReLU between the orders.
FORMULAS = {
    "ir": lambda x, y: [y("f", x)],
    "poly-2": lambda x, y: [y1 := y("f", x), y("ff", relu(y1))],
    "poly-3": lambda x, y: [y1 := y("f", x), y2 := y("ff", relu(y1)), y("fff", relu(y2))],
    "mpoly-2": lambda x, y: [y1 := y("f", x), y("gf", relu(y1))],
    "mpoly-3": lambda x, y: [y1 := y("f", x), y2 := y("gf", relu(y1)), y("hgf", relu(y2))],
    "2-way": lambda x, y: [y("f", x), y("g", x)],
    "3-way": lambda x, y: [y("f", x), y("g", x), y("h", x)],
    "I + F + G + HF": lambda x, y: [y1 := y("f", x), y("g", x), y("hf", relu(y1))],
    "I + F + FGF": lambda x, y: [y1 := y("f", x), y("fgf", relu(y("gf", relu(y1))))],
}


def module(text, stage, *, size=5, scale=0.4, survival=0.8, share_projection=False, seed=0):
    inputs = keras.Input((size, size, CHANNELS[stage]))
    build = PolyInception(
        Polynomial.parse(text),
        stage,
        scale=scale,
        survival_probability=survival,
        share_projection=share_projection,
        name="unit",
    )
    model = keras.Model(inputs, build(inputs))
    randomize(model, seed)
    return model


def reference(model, text, stage, x, factor, share_projection):
    def kernel(name):
        return keras.ops.convert_to_numpy(model.get_layer(name).kernel).astype("float64")

    def y(application, inputs):
        letter = application[0]
        outputs = []
        for number, shapes in enumerate(BRANCHES[stage], 1):
            branch = inputs
            for step, shape in enumerate(shapes, 1):
                where = f"branch{number}_conv{step}"
                weights = kernel(f"unit_{letter}_{where}")
                assert weights.shape == shape
                branch = relu(batch_norm(conv2d(branch, weights), model.get_layer(f"unit_{application}_{where}_bn")))
            outputs.append(branch)
        owner = letter if share_projection else application
        projected = conv2d(np.concatenate(outputs, axis=-1), kernel(f"unit_{owner}_projection"))
        return batch_norm(projected, model.get_layer(f"unit_{application}_projection_bn"))

    return relu(x + factor * sum(FORMULAS[text](x, y)))


def in_one_stage_fast():
    """Every module in every stage; the fast tests have each module in one stage, in turn, but what longer ones hold."""
    for number, text in enumerate(FORMULAS):
        for place, stage in enumerate(BRANCHES):
            slow = place != number % len(BRANCHES) or text in ("2-way", "poly-2", "mpoly-2", "poly-3", "I + F + G + HF")
            yield pytest.param(text, stage, marks=[pytest.mark.slow] * slow)


@pytest.mark.parametrize(("text", "stage"), list(in_one_stage_fast()))
def test_module_equals_its_polynomial(text, stage):
    share_projection = stage == "b"  # both kinds of sharing, over the stages
    for seed in (0, 1):
        model = module(text, stage, share_projection=share_projection, seed=seed)
        x = np.random.default_rng(seed).normal(size=(2, 5, 5, CHANNELS[stage]))
        expected = reference(model, text, stage, x, 0.4 * 0.8, share_projection)
        found = keras.ops.convert_to_numpy(model(x.astype("float32"), training=False))
        # float32 sums of a few thousand products, through up to nine convolutions.
        np.testing.assert_allclose(found, expected, atol=2e-5 * np.abs(expected).max(), rtol=0)
        assert expected.std() > 0.1


def test_every_named_module_is_covered():
    assert set(NAMED) <= set(FORMULAS)


@pytest.mark.parametrize(("share_projection", "projections"), [(False, 3), (True, 1)])
def test_what_the_orders_of_a_polynomial_share(share_projection, projections):
    model = module("poly-3", "b", share_projection=share_projection)
    convolutions = [layer.name for layer in model.layers if isinstance(layer, keras.layers.Conv2D)]
    normalizations = [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]
    assert sum("projection" in name for name in convolutions) == projections
    assert len(convolutions) == 4 + projections
    assert len(normalizations) == 3 * (4 + 1)


def test_common_suffixes_are_computed_once():
    model = module("I + F + GF + HGF", "c")
    blocks = [layer for layer in model.layers if layer.name.endswith("_projection_bn")]
    assert len(blocks) == 3


def test_width_scales_the_inside_and_keeps_the_outside():
    inputs = keras.Input((5, 5, 96))
    model = keras.Model(inputs, PolyInception(Polynomial.parse("ir"), "a", width=0.25, name="unit")(inputs))
    assert model.output_shape == (None, 5, 5, 96)
    assert model.get_layer("unit_f_branch1_conv2").filters == 16  # 48 / 4 = 12, to the next multiple of 8


def test_by_default_a_unit_keeps_its_input_whole_and_draws_nothing():
    """`relu(x + F(x))`: scale and survival are 1, each order has its own projection, the channels are the table's."""
    inputs = keras.Input((5, 5, CHANNELS["a"]))
    model = keras.Model(inputs, PolyInception(Polynomial.parse("poly-2"), "a", name="unit")(inputs))
    residual_sum = model.get_layer("unit_sum_f_ff")
    for values in (residual_sum.scale, residual_sum.survival_probability):
        np.testing.assert_array_equal(keras.ops.convert_to_numpy(values), [1.0, 1.0])
    assert not keras.ops.convert_to_numpy(residual_sum.active)
    assert model.get_layer("unit_ff_projection") is not model.get_layer("unit_f_projection")
    assert model.get_layer("unit_f_branch1_conv2").filters == 48


def test_paths_are_not_drawn_before_they_are_made_active():
    """In training, all of `scale · survival_probability` of each path: half of it, and not all or nothing."""
    model = module("2-way", "a", scale=1.0, survival=0.5)
    x = np.random.default_rng(0).normal(size=(2, 5, 5, CHANNELS["a"])).astype("float32")
    names = ["unit_f_projection_bn", "unit_g_projection_bn", "unit_sum_f_g"]
    parts = keras.Model(model.inputs, [model.get_layer(name).output for name in names])
    for _ in range(3):
        f, g, y = (keras.ops.convert_to_numpy(part) for part in parts(x, training=True))
        np.testing.assert_allclose(y, x + 0.5 * f + 0.5 * g, atol=1e-5)
