"""The preprocessing protocol: how an image becomes a network's input, as a value that travels with the weights."""

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import ops

from polynet_keras.basics.checks import check_flag, is_integer, is_number
from polynet_keras.basics.json_fields import Fields
from polynet_keras.data.image_files import CHANNELS
from polynet_keras.data.image_headers import MAX_PIXELS

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

MAX_SIDE = math.isqrt(MAX_PIXELS)
"""Of an image that a protocol asks for, in pixels."""
RESIZES = ("square", "shorter_side")
INTERPOLATIONS = ("bilinear", "bicubic")
CHANNEL_ORDERS = ("RGB", "BGR")


@dataclass(frozen=True)
class Preprocessing:
    """Resize, crop the centre, scale to [0, 1], normalize: the evaluation protocol that a net's numbers hold for.

    Rounding is torchvision's, which the released PolyNet was evaluated with: the longer side is rounded down, the
    margin of the crop to the nearest even number of two equally near ones.

    Attributes:
        image_size: side of the crop, in pixels: the network's input.
        resize_size: side that the crop is cut from, at least `image_size`.
        mean, std: of each channel, on the scale [0, 1]; their length is the number of channels (1 grey, 3 RGB, 4 RGBA).
        resize: `"square"` squashes the image to a square of `resize_size`; `"shorter_side"` keeps its aspect ratio.
        antialias: whether an image that shrinks is filtered before it is sampled, as Pillow does it.
        interpolation: `"bilinear"`, or `"bicubic"` (with antialias, without which backends and Pillow differ).
        channel_order: of the network's input: `"RGB"`, or `"BGR"` for nets that were converted from Caffe. `mean` and
            `std` are in this order.
    """

    image_size: int
    resize_size: int
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    resize: str = "square"
    antialias: bool = True
    interpolation: str = "bilinear"
    channel_order: str = "RGB"

    def __post_init__(self):
        # From JSON the sequences come as lists.
        object.__setattr__(self, "mean", tuple(self.mean))
        object.__setattr__(self, "std", tuple(self.std))
        for name in ("image_size", "resize_size"):
            size = getattr(self, name)
            if not is_integer(size) or size > MAX_SIDE:
                raise ValueError(f"{name}={size!r} must be a whole number of pixels, at most {MAX_SIDE:,}")
        for name in ("mean", "std"):
            numbers = getattr(self, name)
            if not all(is_number(number) for number in numbers):
                raise ValueError(f"{name}={numbers!r} must be finite numbers")
        check_flag("antialias", self.antialias)
        if not 1 <= self.image_size <= self.resize_size:
            raise ValueError(
                f"resize_size={self.resize_size} must be at least image_size={self.image_size}, and that at least 1"
            )
        if self.channels not in CHANNELS or len(self.std) != self.channels or min(self.std) <= 0:
            raise ValueError(
                f"mean={self.mean} and std={self.std} must have one value for each of 1, 3 or 4 channels, std > 0"
            )
        if self.resize not in RESIZES:
            raise ValueError(f"resize={self.resize!r} must be one of {RESIZES}")
        if self.interpolation not in INTERPOLATIONS:
            raise ValueError(f"interpolation={self.interpolation!r} must be one of {INTERPOLATIONS}")
        if self.interpolation == "bicubic" and not self.antialias:
            raise ValueError("interpolation='bicubic' needs antialias=True: without it, backends and Pillow differ")
        if self.channel_order not in CHANNEL_ORDERS or (self.channel_order == "BGR" and self.channels != 3):
            raise ValueError(
                f"channel_order={self.channel_order!r} must be one of {CHANNEL_ORDERS}, and 'BGR' has 3 channels"
            )

    @classmethod
    def from_fields(cls, fields: Fields) -> "Preprocessing":
        """The protocol that an object of a JSON file says.

        Raises:
            ValueError: a field is missing, unknown or out of range.
        """
        found = {name: fields.take(name) for name in cls.__dataclass_fields__ if name in fields}
        fields.end()
        for name in ("mean", "std"):
            if name in found and not (isinstance(found[name], list) and len(found[name]) <= max(CHANNELS)):
                raise fields.error(name, found[name], f"a list of at most {max(CHANNELS)} numbers")
        for name in ("image_size", "resize_size"):
            if name not in found:
                fields.take(name)
        return cls(**found)

    @property
    def channels(self) -> int:
        return len(self.mean)

    def resized_shape(self, height: int, width: int) -> tuple[int, int]:
        """Height and width, in pixels, that an image is resized to.

        Raises:
            ValueError: it is so narrow that these would be more than `MAX_PIXELS`.
        """
        high, wide, fits = self.resized_sides(height, width)
        if not fits:
            raise ValueError(f"{width}×{height} px with the shorter side brought to {self.resize_size} is too large")
        return high, wide

    def resized_sides(self, height, width):
        """Height and width that an image is resized to, and whether they fit into `MAX_PIXELS`: `resized_shape`, for
        graphs too. Of int64 tensors, tensors; those of a square are Python's, and fit."""
        side = self.resize_size
        if self.resize == "square":
            return side, side, True
        longer = (height + width + abs(height - width)) // 2  # tensors in a graph have no `max`
        shorter = height + width - longer
        return side * height // shorter, side * width // shorter, side**2 * longer <= MAX_PIXELS * shorter

    def crop_box(self, height: int, width: int) -> tuple[int, int, int, int]:
        """(top, left, bottom, right) of the centre crop of a resized image; of tensors, tensors."""
        top, left = (half_to_even(side - self.image_size) for side in (height, width))
        return top, left, top + self.image_size, left + self.image_size

    def crop(self, image: np.ndarray) -> np.ndarray:
        """The centre crop of one image, resized, still of values 0 to 255.

        Args:
            image: uint8 array (height, width, channels).

        Returns:
            float32 array (image_size, image_size, channels).
        """
        size = self.resized_shape(*image.shape[:2])
        top, left, bottom, right = self.crop_box(*size)
        return self.resized(image, size)[top:bottom, left:right]

    def resized(self, image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        """An image of another size, still of values 0 to 255.

        Args:
            image: uint8 or float32 array (height, width, channels).
            size: height and width, in pixels.

        Returns:
            float32 array (*size, channels).
        """
        resized = ops.image.resize(
            image.astype("float32"),
            size,
            interpolation=self.interpolation,
            antialias=self.antialias,
            data_format="channels_last",
        )
        # Bicubic weights go below zero: without the bound, values would go beyond those that an image has.
        return np.clip(ops.convert_to_numpy(resized), 0, 255)

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """The network's input for one image.

        Args:
            image: uint8 array (height, width, channels).

        Returns:
            float32 array (image_size, image_size, channels).
        """
        return self.normalize(self.crop(image))

    def normalize(self, images: np.ndarray) -> np.ndarray:
        """Crops, or views of another shape, as the network takes them.

        Args:
            images: array (..., height, width, channels) of 3 or 4 dimensions, RGB, values 0 to 255.

        Returns:
            Array of the same shape.
        """
        if self.channel_order == "BGR":
            images = images[..., ::-1]
        return normalize(images, self.mean, self.std, "channels_last")


def half_to_even(length):
    """`round(length / 2)`, which tensors do not have."""
    half = length // 2
    return half + (length % 2) * (half % 2)


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
    # In tf.data, `decode_jpeg(channels=0)` gives a tensor of unknown channels, `decode_image` one of unknown rank.
    known = getattr(x.shape, "rank", 0) is not None
    if known and (len(x.shape) not in (3, 4) or x.shape[axis] not in (None, len(mean))):
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


OVERSHOOT = 64
"""How far outside 0 to 255 values may be: a bicubic or Lanczos resize goes some way beyond what it was given."""
NORMALIZED = 20
"""No value of an image whose mean was subtracted and that was divided by its deviation is larger."""


def warn_of_impossible_range(x: Any) -> None:
    """Warns of images that cannot be of values 0 to 255: already scaled to [0, 1] or normalized, or far outside.

    Python shows a warning of one text once for each place that it is raised from. Symbolic tensors have no values and
    pass.
    """
    values = _values(x)
    if values is None or not values.size:
        return
    low, high = values.min(), values.max()
    if not (low >= -OVERSHOOT and high <= 255 + OVERSHOOT):
        found = "values far outside of that range, or not finite"
    elif low < 0 and high <= NORMALIZED:
        found = "values below 0 and none that is large: they look normalized already"
    elif 0 < high <= 1 and (values % 1).any():
        found = "no value above 1: they look scaled to [0, 1] already"
    else:
        return
    warnings.warn(
        f"preprocess_input takes images of values 0 to 255; it got {found}. The network will not know them.",
        stacklevel=3,
    )


def _values(x: Any) -> np.ndarray | None:
    if isinstance(x, np.ndarray):
        return x
    try:
        return ops.convert_to_numpy(x)
    except Exception:  # inside a function that is traced, each backend has an error of its own
        return None
