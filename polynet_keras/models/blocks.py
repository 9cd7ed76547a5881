"""The Inception blocks of PolyNet as graphs, built from the tables of `models.inception`."""

from collections.abc import Callable

import keras
from keras import KerasTensor

from polynet_keras.layers.batch_normalization import BatchNormalization
from polynet_keras.models.inception import (
    BN_EPSILON,
    BN_MOMENTUM,
    REDUCTIONS,
    STEM,
    Branches,
    ConvSpec,
    MaxPool,
    scaled,
)

LayerOf = Callable[[str, Callable[[], keras.layers.Layer]], keras.layers.Layer]
"""Returns the layer of a name; the function makes it at the first call. Orders of a polynomial share layers with it."""


def channel_axis() -> int:
    """Returns the axis of channels in a batch under the current `keras.config.image_data_format()`."""
    return 1 if keras.config.image_data_format() == "channels_first" else -1


def convolution(filters: int, conv: ConvSpec, name: str) -> keras.layers.Conv2D:
    """Returns the bias-free convolution of a table's row, with Xavier (Glorot) initialization as on the poster."""
    return keras.layers.Conv2D(
        filters, conv.kernel, strides=conv.strides, padding=conv.padding, use_bias=False, name=name
    )


def batch_normalization(name: str) -> BatchNormalization:
    return BatchNormalization(axis=channel_axis(), momentum=BN_MOMENTUM, epsilon=BN_EPSILON, name=name)


def concatenate(tensors: list[KerasTensor], name: str) -> KerasTensor:
    """Joins tensors along channels; passes a single tensor through, without a layer."""
    return tensors[0] if len(tensors) == 1 else keras.layers.Concatenate(channel_axis(), name=name)(tensors)


def mixed(
    x: KerasTensor,
    branches: Branches,
    *,
    width: float,
    name: str,
    operator: str | None = None,
    layer_of: LayerOf | None = None,
) -> KerasTensor:
    """Applies parallel branches to `x` and concatenates them along channels.

    Args:
        x: symbolic 4-D tensor.
        branches: a table of `models.inception`.
        width: multiplier of the channel counts.
        name: prefix of the names of the layers that each application makes anew: batch normalizations, activations,
            pooling, concatenation.
        operator: prefix of the names of the convolutions; `name` by default.
        layer_of: returns the convolution of a name, for applications that share convolutions. By default, each
            application makes its own.

    Returns:
        Symbolic 4-D tensor.
    """
    operator = operator or name
    outputs = []
    for number, branch in enumerate(branches, 1):
        where = f"_branch{number}" if len(branches) > 1 else ""
        y = x
        for step, spec in enumerate(branch, 1):
            if isinstance(spec, MaxPool):
                y = keras.layers.MaxPooling2D(spec.size, spec.strides, name=f"{name}{where}_pool")(y)
                continue

            def make(spec=spec, conv_name=f"{operator}{where}_conv{step}"):
                return convolution(scaled(spec.filters, width), spec, conv_name)

            conv = layer_of(f"{operator}{where}_conv{step}", make) if layer_of else make()
            y = conv(y)
            y = batch_normalization(f"{name}{where}_conv{step}_bn")(y)
            y = keras.layers.ReLU(name=f"{name}{where}_conv{step}_relu")(y)
        outputs.append(y)
    return concatenate(outputs, f"{name}_concat")


def stem(x: KerasTensor, *, width: float = 1.0) -> KerasTensor:
    """Builds the stem, from the image to stage A: 331 × 331 × 3 → 39 × 39 × 384."""
    for name, branches in STEM:
        x = mixed(x, branches, width=width, name=name)
    return x


def reduction(x: KerasTensor, stage: str, *, width: float = 1.0) -> KerasTensor:
    """Halves the resolution after stage `"a"` or `"b"`."""
    return mixed(x, REDUCTIONS[stage], width=width, name=f"reduction_{stage}")
