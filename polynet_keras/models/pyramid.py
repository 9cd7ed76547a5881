"""The feature maps of a PolyNet's stages, for segmentation and detection heads."""

import re
from dataclasses import dataclass

import keras
from keras import KerasTensor

from polynet_keras.models.blocks import channel_axis

ENDS = {
    "P1": (r"stem_conv3(_relu)?", 2, 3),
    "P2": (r"stem_mixed2_concat", 4, 9),
    "P3": (r"stage_a_(\d+)_relu", 8, 13),
    "P4": (r"stage_b_(\d+)_relu", 16, 21),
    "P5": (r"stage_c_(\d+)_relu", 32, 37),
}
"""The layer that ends each level (a fused network has no `stem_conv3_relu`), its stride and its offset."""


@dataclass(frozen=True)
class PyramidLevel:
    """A feature map of a network, and the positions of its places in the image.

    A convolution without padding leaves the border out, so the first place of a map is not at the border. The place in
    row i and column j is centred on the pixel (`offset` + `stride` · i, `offset` + `stride` · j), counted from 0. For a
    side of s pixels, a map has ⌊(s − 1 − 2 · `offset`) / `stride`⌋ + 1 places.

    Attributes:
        output: symbolic 4-D tensor of the network, after a ReLU.
        stride: pixels from one place to the next.
        offset: pixels from the image's border to the first place.

    Examples:
        >>> level = feature_pyramid(InceptionResNet((1, 1, 1), width=0.1))["P4"]
        >>> level.stride, level.offset, level.channels
        (16, 21, 112)
    """

    output: KerasTensor
    stride: int
    offset: int

    @property
    def channels(self) -> int:
        return self.output.shape[channel_axis()]


def feature_pyramid(model: keras.Model) -> dict[str, PyramidLevel]:
    """Returns the last feature map of each stride, finest first, for feature pyramids and U-Nets.

    The levels have their usual names: P3 has a stride of 2³ pixels. An image of 331 px gives:

    | level | stride | offset | places | channels | is the output of |
    |---|---|---|---|---|---|
    | P1 | 2 | 3 | 163² | 64 | the first three convolutions |
    | P2 | 4 | 9 | 79² | 192 | the stem, before its last reduction |
    | P3 | 8 | 13 | 39² | 384 | stage A |
    | P4 | 16 | 21 | 19² | 1152 | stage B |
    | P5 | 32 | 37 | 9² | 2048 | stage C |

    (Lin et al., "Feature Pyramid Networks for Object Detection", CVPR 2017, https://arxiv.org/abs/1612.03144.)

    The tensors are the model's own, and share its weights:
    `keras.Model(model.input, {name: level.output for name, level in feature_pyramid(model).items()})` is a model of all
    maps. You can fuse it (`deployment.fuse`), and export it with Keras's `export`.

    Args:
        model: a model that `PolyNet` or `InceptionResNet` returned, with or without the top, trained, loaded or fused;
            or a functional model of its layers.

    Returns:
        The levels that the model has, by name (`"P1"` to `"P5"`). A model that was cut after stage B has no P5.

    Raises:
        ValueError: the model has no level.

    Examples:
        >>> levels = feature_pyramid(InceptionResNet((1, 1, 1), width=0.1, include_top=False))
        >>> {name: level.stride for name, level in levels.items()}
        {'P1': 2, 'P2': 4, 'P3': 8, 'P4': 16, 'P5': 32}
    """
    levels = {}
    for name, (pattern, stride, offset) in ENDS.items():
        matches = [re.fullmatch(pattern, layer.name) for layer in getattr(model, "layers", ())]
        ends = [match for match in matches if match]
        if ends:
            # By number: the hundredth unit's name would stand before that of the second.
            last = max(ends, key=lambda match: (len(match[0]), match[0]))
            levels[name] = PyramidLevel(model.get_layer(last[0]).output, stride, offset)
    if not levels:
        raise ValueError(
            f"model {getattr(model, 'name', model)!r} has no layer of a PolyNet; expected what PolyNet or "
            "InceptionResNet returns. Of a model that holds one, take that: model.get_layer('polynet')"
        )
    return levels
