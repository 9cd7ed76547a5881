"""The counts from the tables against counts from the layers of a built network."""

import keras
import numpy as np
import pytest

import polynet_keras
from polynet_keras.models import Structure, network_cost


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


@pytest.mark.parametrize("share_projection", [False, True])
@pytest.mark.parametrize(("size", "width", "channels"), [(75, 0.25, 1), (96, 0.1, 4), (131, 0.5, 3)])
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
