"""The preprocessing protocol: how an image becomes a network's input, as a value that travels with the weights."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import ops

from polynet_keras.data.extras import require_data_extra

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

CHANNELS = {1: "L", 3: "RGB", 4: "RGBA"}
"""Pillow's mode of an image of so many channels."""

MAX_PIXELS = 89_478_485
"""The largest image that is decoded, Pillow's own bound: a few kilobytes of PNG can claim to be gigabytes of pixels."""


@dataclass(frozen=True)
class Preprocessing:
    """Resize to a square (the aspect ratio is not kept), crop the centre, scale to [0, 1], normalize.

    This is the evaluation of the released PolyNet, which resizes to 378 px and crops 331.

    Attributes:
        image_size: side of the crop, in pixels: the network's input.
        resize_size: side of the square that the crop is cut from, at least `image_size`. Bilinear, with antialiasing.
        mean, std: of each channel, on the scale [0, 1]; their length is the number of channels (1 grey, 3 RGB, 4 RGBA).
    """

    image_size: int
    resize_size: int
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD

    def __post_init__(self):
        # From JSON the sequences come as lists.
        object.__setattr__(self, "mean", tuple(self.mean))
        object.__setattr__(self, "std", tuple(self.std))
        if not 1 <= self.image_size <= self.resize_size:
            raise ValueError(
                f"resize_size={self.resize_size} must be at least image_size={self.image_size}, and that at least 1"
            )
        if self.channels not in CHANNELS or len(self.std) != self.channels or min(self.std) <= 0:
            raise ValueError(
                f"mean={self.mean} and std={self.std} must have one value for each of 1, 3 or 4 channels, std > 0"
            )

    @property
    def channels(self) -> int:
        return len(self.mean)

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """The network's input for one image.

        Args:
            image: uint8 array (height, width, channels).

        Returns:
            float32 array (image_size, image_size, channels).
        """
        size = (self.resize_size, self.resize_size)
        resized = ops.image.resize(
            image.astype("float32"), size, interpolation="bilinear", antialias=True, data_format="channels_last"
        )
        margin = (self.resize_size - self.image_size) // 2
        end = margin + self.image_size
        crop = ops.convert_to_numpy(resized)[margin:end, margin:end]
        return normalize(crop, self.mean, self.std, "channels_last")


def normalize(x: Any, mean: Sequence[float], std: Sequence[float], data_format: str | None = None) -> Any:
    """`(x / 255 - mean) / std` for each channel, never in place.

    Args:
        x: array or tensor of values 0 to 255, 3-D or 4-D.
        mean, std: one value a channel.
        data_format: `"channels_last"`, `"channels_first"`, or `None` for `keras.config.image_data_format()`.

    Returns:
        A NumPy array for a NumPy array, else a backend tensor; integers become `keras.config.floatx()`.

    Raises:
        ValueError: another number of dimensions or channels than expected, or an unknown data format.
    """
    data_format = data_format or keras.config.image_data_format()
    if data_format not in ("channels_last", "channels_first"):
        raise ValueError(f"data_format={data_format!r} must be 'channels_last' or 'channels_first'")
    is_numpy = isinstance(x, np.ndarray)
    if not is_numpy:
        x = ops.convert_to_tensor(x)
    axis = -1 if data_format == "channels_last" else -3
    if len(x.shape) not in (3, 4) or x.shape[axis] != len(mean):
        raise ValueError(
            f"expected images of {len(mean)} channels, 3-D or 4-D, {data_format}; got the shape {tuple(x.shape)}"
        )
    if "float" not in keras.backend.standardize_dtype(x.dtype):
        x = x.astype(keras.config.floatx()) if is_numpy else ops.cast(x, keras.config.floatx())
    channel = (-1,) if data_format == "channels_last" else (-1, 1, 1)
    # One multiplication and one addition: x·scale + offset. The constants take x's dtype, so float16 stays float16.
    scale = np.reshape([1.0 / (255.0 * s) for s in std], channel)
    offset = np.reshape([-m / s for m, s in zip(mean, std, strict=True)], channel)
    if is_numpy:
        return x * scale.astype(x.dtype) + offset.astype(x.dtype)
    return x * ops.convert_to_tensor(scale, x.dtype) + ops.convert_to_tensor(offset, x.dtype)


def read_image(path: str | os.PathLike, channels: int) -> np.ndarray:
    """Decodes an image file.

    Args:
        path: a file of any format that Pillow reads; of an animation, the first frame.
        channels: 1 (grey), 3 (RGB) or 4 (RGBA): what the image is converted to.

    Returns:
        uint8 array (height, width, channels).

    Raises:
        ValueError: the file is missing, is no image, is truncated, or has more than `MAX_PIXELS` pixels.
    """
    require_data_extra("PIL")
    from PIL import Image, ImageOps

    path = os.fspath(path)
    try:
        with Image.open(path) as image:
            if image.width * image.height > MAX_PIXELS:
                raise ValueError(f"{path}: {image.width}×{image.height} px is over the limit of {MAX_PIXELS:,} pixels")
            upright = ImageOps.exif_transpose(image)
            if upright.mode.startswith(("I", "F")):
                upright = Image.fromarray(_eight_bits(path, np.asarray(upright)))
            upright = upright.convert(CHANNELS[channels])
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise ValueError(f"{path}: cannot be read as an image: {reason}") from None
    return np.asarray(upright, dtype="uint8").reshape(upright.height, upright.width, channels)


def _eight_bits(path: str, pixels: np.ndarray) -> np.ndarray:
    """Sixteen-bit grey as eight bits: Pillow's own conversion would clip, not scale."""
    if not np.issubdtype(pixels.dtype, np.integer) or pixels.min() < 0 or pixels.max() > 0xFFFF:
        raise ValueError(f"{path}: its pixels are neither 8 nor 16 bit; convert it to one of these")
    return (pixels >> 8).astype("uint8")
