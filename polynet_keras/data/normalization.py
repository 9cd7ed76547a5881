"""Named normalizations of common models."""

from collections.abc import Sequence

from polynet_keras.basics.names import number_of
from polynet_keras.data.protocol import IMAGENET_MEAN, IMAGENET_STD, Preprocessing

NORMALIZATIONS: dict[str, tuple[tuple[float, ...], tuple[float, ...], str]] = {
    "imagenet": (IMAGENET_MEAN, IMAGENET_STD, "RGB"),
    "symmetric": ((0.5,), (0.5,), "RGB"),
    "unit": ((0.0,), (1.0,), "RGB"),
    "raw": ((0.0,), (1 / 255,), "RGB"),
    "caffe": ((103.939 / 255, 116.779 / 255, 123.68 / 255), (1 / 255,) * 3, "BGR"),
}
"""Mean and deviation, on the scale [0, 1], and the order of the channels, by name.

`imagenet` is used by torchvision and most of timm; `symmetric` gives -1 to 1, `unit` 0 to 1, `raw` 0 to 255, for
models with their own `Rescaling` layer; `caffe` is used by Keras's ResNet and VGG.
"""


def preprocessing_named(
    normalization: str | tuple[Sequence[float], Sequence[float]], image_size: int, channels: int
) -> Preprocessing:
    """Returns a protocol that squashes the whole image to a square and normalizes it.

    Args:
        normalization: a name of `NORMALIZATIONS`, or mean and deviation, one value for all channels or one for each.
        image_size: side of the square, in pixels.
        channels: channels of the model's images: 1, 3 or 4.

    Raises:
        ValueError: there is no such name, or the number of values differs from the channels.
    """
    if isinstance(normalization, str):
        if normalization not in NORMALIZATIONS:
            raise ValueError(f"preprocessing={normalization!r} must be one of {', '.join(NORMALIZATIONS)}")
        mean, std, order = NORMALIZATIONS[normalization]
    else:
        (mean, std), order = map(tuple, normalization), "RGB"
    mean, std = (tuple(values) * (channels if len(values) == 1 else 1) for values in (mean, std))
    for name, values in (("mean", mean), ("std", std)):
        if len(values) != channels:
            raise ValueError(
                f"the model takes images of {number_of(channels, 'channel')}, the preprocessing "
                f"{normalization if isinstance(normalization, str) else name} has {number_of(len(values), 'value')}"
            )
    return Preprocessing(image_size, image_size, mean, std, channel_order=order)
