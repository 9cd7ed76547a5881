"""The tables of the stem and the reductions, and what is made of them, against the published model.

What the blocks compute is in `test_poly_inception.py`; that `cost` counts from the same tables, in `test_cost.py`.
"""

import keras
import pytest

from polynet_keras.models.blocks import batch_normalization, channel_axis, concatenate, mixed, reduction, stem
from polynet_keras.models.inception import BLOCKS, REDUCTIONS, scaled
from polynet_keras.models.inception import STEM as OUR_STEM
from polynet_keras.models.inception import ConvSpec as Row

# Kernels (height, width, in, out) of the published model, each with its stride and padding, in order.
STEM = {
    "stem_conv1": ((3, 3, 3, 32), 2, "valid"),
    "stem_conv2": ((3, 3, 32, 32), 1, "valid"),
    "stem_conv3": ((3, 3, 32, 64), 1, "same"),
    "stem_mixed1_branch2_conv1": ((3, 3, 64, 96), 2, "valid"),
    "stem_mixed2_branch1_conv1": ((1, 1, 160, 64), 1, "same"),
    "stem_mixed2_branch1_conv2": ((3, 3, 64, 96), 1, "valid"),
    "stem_mixed2_branch2_conv1": ((1, 1, 160, 64), 1, "same"),
    "stem_mixed2_branch2_conv2": ((7, 1, 64, 64), 1, "same"),
    "stem_mixed2_branch2_conv3": ((1, 7, 64, 64), 1, "same"),
    "stem_mixed2_branch2_conv4": ((3, 3, 64, 96), 1, "valid"),
    "stem_mixed3_branch2_conv1": ((3, 3, 192, 192), 2, "valid"),
}
REDUCTION_A = {
    "reduction_a_branch1_conv1": ((1, 1, 384, 256), 1, "same"),
    "reduction_a_branch1_conv2": ((3, 3, 256, 256), 1, "same"),
    "reduction_a_branch1_conv3": ((3, 3, 256, 384), 2, "valid"),
    "reduction_a_branch2_conv1": ((3, 3, 384, 384), 2, "valid"),
}
REDUCTION_B = {
    "reduction_b_branch1_conv1": ((1, 1, 1152, 256), 1, "same"),
    "reduction_b_branch1_conv2": ((3, 3, 256, 256), 1, "same"),
    "reduction_b_branch1_conv3": ((3, 3, 256, 256), 2, "valid"),
    "reduction_b_branch2_conv1": ((1, 1, 1152, 256), 1, "same"),
    "reduction_b_branch2_conv2": ((3, 3, 256, 256), 2, "valid"),
    "reduction_b_branch3_conv1": ((1, 1, 1152, 256), 1, "same"),
    "reduction_b_branch3_conv2": ((3, 3, 256, 384), 2, "valid"),
}
PARTS = {
    "stem": (stem, (331, 331, 3), (39, 39, 384), STEM, ["stem_mixed1_branch1_pool", "stem_mixed3_branch1_pool"]),
    "reduction_a": (
        lambda x: reduction(x, "a"), (39, 39, 384), (19, 19, 1152), REDUCTION_A, ["reduction_a_branch3_pool"],
    ),
    "reduction_b": (
        lambda x: reduction(x, "b"), (19, 19, 1152), (9, 9, 2048), REDUCTION_B, ["reduction_b_branch4_pool"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("part", PARTS)
def test_parts_are_those_of_the_published_model(part):
    build, shape, output_shape, rows, pools = PARTS[part]
    inputs = keras.Input(shape)
    model = keras.Model(inputs, build(inputs))
    assert model.output_shape == (None, *output_shape)
    convolutions = {layer.name: layer for layer in model.layers if isinstance(layer, keras.layers.Conv2D)}
    found = {n: (tuple(c.kernel.shape), c.strides[0], c.padding) for n, c in convolutions.items()}
    assert found == rows
    assert all(c.strides[0] == c.strides[1] and not c.use_bias for c in convolutions.values())
    found = [layer for layer in model.layers if isinstance(layer, keras.layers.MaxPooling2D)]
    assert sorted(layer.name for layer in found) == pools
    assert {(layer.pool_size, layer.strides, layer.padding) for layer in found} == {((3, 3), (2, 2), "valid")}
    names = {layer.name for layer in model.layers}
    assert {f"{name}{end}" for name in rows for end in ("_bn", "_relu")} <= names
    assert len(names) == 1 + 3 * len(rows) + len(pools) + sum(name.endswith("_concat") for name in names)


def test_normalizations_are_those_of_the_published_model():
    layer = batch_normalization("bn")
    assert (layer.epsilon, layer.momentum, layer.scale, layer.center) == (1e-5, 0.9, True, True)


@pytest.mark.parametrize(("data_format", "axis"), [("channels_first", 1), ("channels_last", -1)])
def test_the_axis_of_channels(data_format, axis):
    keras.config.set_image_data_format(data_format)
    assert channel_axis() == axis
    assert batch_normalization("bn").axis == axis
    inputs = keras.Input((8, 16, 16))
    joined = mixed(inputs, ((Row(16, (1, 1)),), (Row(32, (1, 1)),)), width=1.0, name="block")
    assert joined.shape[axis] == 48


@pytest.mark.parametrize(
    ("filters", "width", "expected"),
    [
        (35, 1.0, 35),  # as the table says
        (32, 0.5, 16),
        (48, 0.25, 16),  # 12, halfway: up
        (44, 0.25, 8),  # 11
        (32, 0.1, 8),  # 3, and never less than 8
        (8, 0.01, 8),
        (100, 1.25, 128),  # 125
        (64, 2.0, 128),
    ],
)
def test_channels_are_multiples_of_eight(filters, width, expected):
    assert scaled(filters, width) == expected


def test_convolutions_are_shared_by_name_and_the_rest_is_new():
    """One operator applied twice: one kernel for both, a normalization for each."""
    made = {}

    def layer_of(name, make):
        if name not in made:
            made[name] = make()
        return made[name]

    inputs = x = keras.Input((4, 4, 8))
    for name in ("first", "second"):
        x = mixed(x, ((Row(8, (1, 1)), Row(16, (3, 3))),), width=0.5, name=name, operator="op", layer_of=layer_of)
    assert {name: layer.filters for name, layer in made.items()} == {"op_conv1": 8, "op_conv2": 8}
    names = [layer.name for layer in keras.Model(inputs, x).layers]
    assert [name for name in names if name.endswith(("conv1", "conv2"))] == ["op_conv1", "op_conv2"]
    assert [name for name in names if name.endswith("_bn")] == [
        "first_conv1_bn", "first_conv2_bn", "second_conv1_bn", "second_conv2_bn"
    ]  # fmt: skip


def test_a_single_branch_needs_no_layer():
    tensor = keras.Input((2, 2, 3))
    assert concatenate([tensor], "one") is tensor


def test_channels_suit_the_matrix_units_of_gpus():
    """Those take multiples of 8 numbers of 16 bits, and pad or avoid others; at 1.0 all counts are multiples of 16."""
    tables = [*(branches for _, branches in OUR_STEM), *BLOCKS.values(), *REDUCTIONS.values()]
    counts = [row.filters for branches in tables for branch in branches for row in branch if isinstance(row, Row)]
    assert not [count for count in counts if count % 16]
    assert not [count for count in counts for width in (0.1, 0.25, 0.75, 1.3) if scaled(count, width) % 8]
