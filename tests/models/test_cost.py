"""The counts from the tables against counts from the layers of a built network."""

from dataclasses import FrozenInstanceError

import keras
import numpy as np
import pytest

import polynet_keras
from polynet_keras import PolyNet
from polynet_keras.models import Structure, network_cost
from polynet_keras.models.cost import list_structures
from polynet_keras.models.macs import count_macs, parameters_text


def counts_of_built_network(model):
    parameters = sum(int(np.prod(variable.shape)) for variable in model.trainable_variables)
    macs = activations = 0
    for layer in model.layers:
        if isinstance(layer, (keras.layers.Conv2D, keras.layers.Dense)):
            kernel = int(np.prod(layer.kernel.shape))
            for node in layer._inbound_nodes:  # a shared layer has one for each application
                shape = node.outputs[0].shape[1:]
                macs += kernel * int(np.prod(shape[:-1]))
                activations += int(np.prod(shape))
    return parameters, macs, activations


@pytest.mark.parametrize(
    ("size", "width", "channels", "share_projection"),
    [
        pytest.param(75, 0.25, 1, False, marks=pytest.mark.slow),
        (96, 0.1, 4, True),
        pytest.param(75, 0.25, 1, True, marks=pytest.mark.slow),
        pytest.param(96, 0.1, 4, False, marks=pytest.mark.slow),
        pytest.param(131, 0.5, 3, False, marks=pytest.mark.slow),
        pytest.param(131, 0.5, 3, True, marks=pytest.mark.slow),
    ],
)
def test_counts_equal_those_of_the_built_network(size, width, channels, share_projection):
    structure = "2 x [3-way] | 1 x [poly-3, mpoly-2] | 1 x [mpoly-3, I + F + G + FG]"
    model = polynet_keras.PolyNet(
        weights=None,
        input_shape=(size, size, channels),
        classes=7,
        structure=structure,
        width=width,
        share_projection=share_projection,
    )
    parts = network_cost(
        Structure.parse(structure),
        input_shape=(size, size, channels),
        width=width,
        share_projection=share_projection,
        classes=7,
    )
    totals = tuple(sum(getattr(part, name) for part in parts) for name in ("parameters", "macs", "activations"))
    assert totals == counts_of_built_network(model)
    for part, layer in [(parts[0], "stem_mixed3_concat"), (parts[3], "stage_b_02_relu"), (parts[5], "stage_c_02_relu")]:
        assert part.output_shape == model.get_layer(layer).output.shape[1:]


def test_sizes_of_a_331_px_image_are_those_of_the_paper():
    parts = {part.name: part.output_shape for part in network_cost(Structure.parse("polynet-g5"))}
    assert parts["stage A"] == (39, 39, 384)
    assert parts["stage B"] == (19, 19, 1152)
    assert parts["stage C"] == (9, 9, 2048)


def test_each_part_has_its_name_and_its_modules():
    parts = network_cost("2 x [ir] | 1 x [poly-3, 2-way] | 1 x [I + FF]", classes=5)
    assert [(part.name, part.modules) for part in parts] == [
        ("stem", ""), ("stage A", "2 x [ir]"), ("reduction A", ""), ("stage B", "1 x [poly-3, 2-way]"),
        ("reduction B", ""), ("stage C", "1 x [I + F^2]"), ("head", ""),
    ]  # fmt: skip
    # A head of 5 classes on 2048 channels: a kernel and a bias, one multiplication an element of the kernel.
    head = parts[-1]
    assert (head.output_shape, head.parameters, head.macs, head.activations) == ((5,), 2049 * 5, 2048 * 5, 5)


def test_by_default_the_projections_are_not_shared_and_there_are_a_thousand_classes():
    parts = network_cost("1 x [ir] | 1 x [ir] | 1 x [poly-2]")
    # Stage C: a block and its projection from 448 channels to 2048; the second order adds a projection of its own.
    block = 2048 * 192 + 3 * 192 * 224 + 3 * 224 * 256 + 2048 * 192
    normalizations = 2 * (192 + 224 + 256 + 192 + 2048)
    assert parts[5].parameters == block + 2 * 448 * 2048 + 2 * normalizations
    assert parts[-1].output_shape == (1000,)
    assert parts[0].output_shape == (39, 39, 384)  # of an image of 331 px


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"structure": "polynet-g6"}, "structure='»polynet-g6', column 1: unknown structure"),
        ({"width": 0}, "width=0"),
        ({"classes": 0}, "classes=0"),
        ({"input_shape": (74, 75, 3)}, "input_shape must be"),
        ({"input_shape": (None, None, 3)}, "must say the size of the image"),
        ({"input_shape": (75, None, 3)}, "must say the size of the image"),
    ],
)
def test_what_the_network_refuses_has_no_cost(arguments, message):
    with pytest.raises(ValueError, match=message):
        network_cost(**{"structure": "ir-5-10-5", **arguments})


def test_a_card_stays_what_it_is():
    with pytest.raises(FrozenInstanceError):
        list_structures()[0].macs = 0


def test_listed_structures_have_the_operations_of_the_design():
    """34.70 G for G5, as the published one; see docs/design.md."""
    cards = {card.name: card for card in list_structures()}
    assert round(cards["polynet-g5"].macs / 1e9, 2) == 34.70
    assert cards["polynet-g5"].stages == "10 x [2-way] | 10 x [poly-3, 2-way] | 5 x [poly-3, 2-way]"
    assert list(cards) == ["polynet-g5", "ir-5-10-5", "ir-10-20-10", "ir-20-56-20"]


@pytest.mark.slow
@pytest.mark.parametrize("share_projection", [False, True])
@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
def test_macs_counted_from_a_model_are_those_of_its_structure(share_projection, data_format):
    keras.config.set_image_data_format(data_format)
    structure, classes = "1 x [poly-3] | 1 x [mpoly-2, 2-way] | 1 x [ir]", 7
    shape = (80, 96, 3) if data_format == "channels_last" else (3, 80, 96)
    model = PolyNet(
        weights=None, structure=structure, width=0.25, input_shape=shape, classes=classes,
        share_projection=share_projection,
    )  # fmt: skip
    parts = network_cost(
        structure, input_shape=(80, 96, 3), width=0.25, classes=classes, share_projection=share_projection
    )
    assert count_macs(model) == sum(part.macs for part in parts)
    assert count_macs(PolyNet(weights=None, structure=structure, width=0.25, include_top=False)) == 0  # of any size


@pytest.mark.slow
def test_macs_of_other_models():
    """Worked by hand; and published: 3.86 G for ResNet-50 with strides in its 1 × 1 convolutions, 0.30 G."""
    image = keras.Input((9, 9, 4))
    x = keras.layers.Conv2D(6, 3, strides=2, groups=2)(image)  # 4 × 4 positions, 3 · 3 · 2 · 6
    x = keras.layers.DepthwiseConv2D(3, padding="same")(x)  # 4 · 4 · 9 · 6
    inner = keras.Model(image, x)
    y = keras.layers.SeparableConv2D(5, 2)(inner(image))  # 3 · 3 · (4 · 6 + 6 · 5)
    model = keras.Model(image, keras.layers.Dense(3)(keras.layers.Flatten()(y)))
    assert count_macs(model) == 16 * 108 + 16 * 54 + 9 * 54 + 45 * 3
    sequence = keras.Input((5, 7))
    assert count_macs(keras.Model(sequence, keras.layers.Dense(2)(sequence))) == 5 * 7 * 2
    strip = keras.Input((None, 9, 4))  # of any height
    assert count_macs(keras.Model(strip, keras.layers.Conv2D(6, 3)(strip))) == 0
    backbone = keras.Input((None, None, 4))
    backbone = keras.Model(backbone, keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(6, 3)(backbone)))
    assert count_macs(keras.Model(image, keras.layers.Dense(3)(backbone(image)))) == 0  # and not its last layer's alone
    up = keras.layers.Conv2DTranspose(3, 2, strides=2)(image)  # its outputs do not cost as its kernel has elements
    assert count_macs(keras.Model(image, up)) == 0
    assert round(count_macs(keras.applications.ResNet50(weights=None)) / 1e9, 2) == 3.86
    assert round(count_macs(keras.applications.MobileNetV2(weights=None)) / 1e9, 2) == 0.30


def test_the_parameters_of_a_model_are_told_from_the_trainable_ones():
    inputs = keras.Input((4,))
    x = keras.layers.BatchNormalization()(keras.layers.Dense(3)(inputs))
    model = keras.Model(inputs, x)
    assert parameters_text(model) == "27 parameters (21 trainable)"
    model.layers[1].trainable = False
    assert parameters_text(model) == "27 parameters (6 trainable)"
