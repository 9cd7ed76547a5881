"""The Inception blocks of PolyNet: the stem, blocks A, B and C, and the two reductions, as tables and as graphs.

Each table lists parallel branches, each a sequence of convolutions; a convolution is conv-BN-ReLU without bias.
`models.cost` counts from the same tables that the graph is built from. Sizes in comments are those of a 331 px image.

Source: the released Caffe model of the authors, as ported to PyTorch in `pretrainedmodels` and `pytorchcv`.
"""

from collections.abc import Callable
from dataclasses import dataclass

import keras
from keras import KerasTensor

from polynet_keras.layers.batch_normalization import BatchNormalization

BN_EPSILON = 1e-5
BN_MOMENTUM = 0.9
"""The share that a moving statistic keeps at a step: PyTorch's default of 0.1 in Keras's way of counting."""


@dataclass(frozen=True)
class ConvSpec:
    """A convolution of the tables: `filters` at width 1.0, `kernel` (height, width)."""

    filters: int
    kernel: tuple[int, int]
    strides: int = 1
    padding: str = "same"


@dataclass(frozen=True)
class MaxPool:
    """A max pooling of the tables: 3×3, stride 2, without padding."""

    size: int = 3
    strides: int = 2


Branch = tuple[ConvSpec | MaxPool, ...]
Branches = tuple[Branch, ...]


def _conv(filters: int, height: int, width: int | None = None, *, strides: int = 1, padding: str = "same") -> ConvSpec:
    return ConvSpec(filters, (height, height if width is None else width), strides, padding)


POOL = MaxPool()

STEM: tuple[tuple[str, Branches], ...] = (
    (
        "stem",  # 331 → 165 → 163 → 163 × 163 × 64
        ((_conv(32, 3, strides=2, padding="valid"), _conv(32, 3, padding="valid"), _conv(64, 3)),),
    ),
    ("stem_mixed1", ((POOL,), (_conv(96, 3, strides=2, padding="valid"),))),  # 81 × 81 × 160
    (
        "stem_mixed2",  # 79 × 79 × 192
        (
            (_conv(64, 1), _conv(96, 3, padding="valid")),
            (_conv(64, 1), _conv(64, 7, 1), _conv(64, 1, 7), _conv(96, 3, padding="valid")),
        ),
    ),
    ("stem_mixed3", ((POOL,), (_conv(192, 3, strides=2, padding="valid"),))),  # 39 × 39 × 384
)

BLOCKS: dict[str, Branches] = {
    "a": ((_conv(32, 1), _conv(48, 3), _conv(64, 3)), (_conv(32, 1), _conv(32, 3)), (_conv(32, 1),)),
    "b": ((_conv(128, 1), _conv(160, 1, 7), _conv(192, 7, 1)), (_conv(192, 1),)),
    "c": ((_conv(192, 1), _conv(224, 1, 3), _conv(256, 3, 1)), (_conv(192, 1),)),
}
"""The branches of each stage's block; the projection back to the stage's channels is added by whoever applies it."""

REDUCTIONS: dict[str, Branches] = {
    "a": (  # 39 × 39 × 384 → 19 × 19 × 1152
        (_conv(256, 1), _conv(256, 3), _conv(384, 3, strides=2, padding="valid")),
        (_conv(384, 3, strides=2, padding="valid"),),
        (POOL,),
    ),
    "b": (  # 19 × 19 × 1152 → 9 × 9 × 2048
        (_conv(256, 1), _conv(256, 3), _conv(256, 3, strides=2, padding="valid")),
        (_conv(256, 1), _conv(256, 3, strides=2, padding="valid")),
        (_conv(256, 1), _conv(384, 3, strides=2, padding="valid")),
        (POOL,),
    ),
}
"""What follows stage A and stage B."""

LayerOf = Callable[[str, Callable[[], keras.layers.Layer]], keras.layers.Layer]
"""Gives the layer of a name, made by the function at the first call: how orders of a polynomial share layers."""


def scaled(filters: int, width: float) -> int:
    """The channel count at a width multiplier: rounded to a multiple of 8, at least 8; exact at 1.0."""
    return filters if width == 1.0 else max(8, int(filters * width + 4) // 8 * 8)


def channel_axis() -> int:
    """The axis of channels in a batch under the current `keras.config.image_data_format()`."""
    return 1 if keras.config.image_data_format() == "channels_first" else -1


def convolution(filters: int, conv: ConvSpec, name: str) -> keras.layers.Conv2D:
    """The bias-free convolution layer of a table's row, with Xavier (Glorot) initialization as on the poster."""
    return keras.layers.Conv2D(
        filters, conv.kernel, strides=conv.strides, padding=conv.padding, use_bias=False, name=name
    )


def batch_normalization(name: str) -> BatchNormalization:
    return BatchNormalization(axis=channel_axis(), momentum=BN_MOMENTUM, epsilon=BN_EPSILON, name=name)


def concatenate(tensors: list[KerasTensor], name: str) -> KerasTensor:
    """The tensors joined along channels; a single one is passed through, without a layer."""
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
        branches: a table of this module.
        width: multiplier of the channel counts.
        name: prefix of the names of what is made anew at each application: batch normalizations, activations,
            pooling, concatenation.
        operator: prefix of the names of the convolutions; `name` by default.
        layer_of: gives the convolution of a name, for applications that share theirs; made anew by default.

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
    """From the image to stage A: 331 × 331 × 3 → 39 × 39 × 384."""
    for name, branches in STEM:
        x = mixed(x, branches, width=width, name=name)
    return x


def reduction(x: KerasTensor, stage: str, *, width: float = 1.0) -> KerasTensor:
    """Halves the resolution after stage `"a"` or `"b"`."""
    return mixed(x, REDUCTIONS[stage], width=width, name=f"reduction_{stage}")
