"""The preprocessing protocol from an image to a network's input, as a value that travels with the weights.

Keras, which computes with images, is imported only when an image is preprocessed (`pixels`).
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from polynet_keras.basics.checks import check_flag, is_integer, is_number
from polynet_keras.basics.json_fields import Fields
from polynet_keras.data.image_files import CHANNELS
from polynet_keras.data.image_headers import MAX_PIXELS

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

MAX_SIDE = math.isqrt(MAX_PIXELS)
"""Largest side of an image in a protocol, in pixels."""
RESIZES = ("square", "shorter_side")
INTERPOLATIONS = ("bilinear", "bicubic")
CHANNEL_ORDERS = ("RGB", "BGR")
DECODINGS = ("exact", "scaled")


def _numbers(values: Iterable[float]) -> str:
    return ", ".join(map(str, values))


@dataclass(frozen=True)
class Preprocessing:
    """Resize, crop the centre, scale to [0, 1], normalize: the evaluation protocol of a network's results.

    Rounding is torchvision's, which the released PolyNet was evaluated with: the longer side is rounded down, and the
    margin of the crop is rounded half to even.

    Attributes:
        image_size: side of the crop, in pixels: the network's input.
        resize_size: side that the crop is cut from, at least `image_size`.
        mean, std: values of each channel, on the scale [0, 1]; their length is the number of channels (1 grey, 3 RGB, 4
            RGBA).
        resize: `"square"` squashes the image to a square of `resize_size`; `"shorter_side"` keeps its aspect ratio.
        antialias: whether a shrinking image is filtered before sampling, as in Pillow.
        interpolation: `"bilinear"`, or `"bicubic"` (with antialias, without which backends and Pillow differ).
        channel_order: order of the network's input: `"RGB"`, or `"BGR"` for networks converted from Caffe. `mean` and
            `std` are in this order.
        decoding: decoding of JPEG files: `"exact"`, every pixel; or `"scaled"`, at 1/2, 1/4 or 1/8 by libjpeg: the
            smallest scale whose shorter side is at least that of the resized image. All further steps use the smaller
            image. Arrays are already pixels, and are not scaled.

    Examples:
        >>> preprocessing = Preprocessing(image_size=331, resize_size=378)
        >>> photograph = np.zeros((480, 640, 3), "uint8")
        >>> preprocessing(photograph).shape
        (331, 331, 3)
    """

    image_size: int
    resize_size: int
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    resize: str = "square"
    antialias: bool = True
    interpolation: str = "bilinear"
    channel_order: str = "RGB"
    decoding: str = "exact"

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
                raise ValueError(f"{name}={_numbers(numbers)} must be finite numbers")
        check_flag("antialias", self.antialias)
        if not 1 <= self.image_size <= self.resize_size:
            raise ValueError(
                f"resize_size={self.resize_size} must be at least image_size={self.image_size}, and that at least 1"
            )
        if self.channels not in CHANNELS or len(self.std) != self.channels or min(self.std) <= 0:
            raise ValueError(
                f"mean={_numbers(self.mean)} and std={_numbers(self.std)} must have one value for each of 1, 3 or 4 "
                "channels, std > 0"
            )
        if self.resize not in RESIZES:
            raise ValueError(f"resize={self.resize!r} must be one of {', '.join(RESIZES)}")
        if self.interpolation not in INTERPOLATIONS:
            raise ValueError(f"interpolation={self.interpolation!r} must be one of {', '.join(INTERPOLATIONS)}")
        if self.interpolation == "bicubic" and not self.antialias:
            raise ValueError("interpolation='bicubic' needs antialias=True: without it, backends and Pillow differ")
        if self.channel_order not in CHANNEL_ORDERS or (self.channel_order == "BGR" and self.channels != 3):
            raise ValueError(
                f"channel_order={self.channel_order!r} must be one of {', '.join(CHANNEL_ORDERS)}, and BGR has 3 "
                "channels"
            )
        if self.decoding not in DECODINGS:
            raise ValueError(f"decoding={self.decoding!r} must be one of {', '.join(DECODINGS)}")
        if self.decoding == "scaled" and not self.antialias:
            raise ValueError("decoding='scaled' needs antialias=True: to decode at a smaller scale is to filter")

    @classmethod
    def from_fields(cls, fields: Fields) -> "Preprocessing":
        """Reads the protocol from an object of a JSON file.

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

    @property
    def least_side(self) -> int | None:
        """Least pixels of an image's shorter side after decoding; `None` for all pixels."""
        return self.resize_size if self.decoding == "scaled" else None

    @property
    def description(self) -> str:
        """Returns the steps in words, without those that are usual; `repr` has every value.

        Examples:
            >>> Preprocessing(image_size=331, resize_size=378, resize="shorter_side").description
            'shorter side resized to 378 px, cropped to 331 px'
        """
        side, crop = self.resize_size, self.image_size
        square = f"resized to {side} x {side} px"
        steps = [square if self.resize == "square" else f"shorter side resized to {side} px"]
        if crop != side or self.resize != "square":
            steps.append(f"cropped to {crop} px")
        if self.decoding != "exact":
            steps.append("JPEGs decoded at a smaller scale")
        if not self.antialias:
            steps.append("without antialiasing")
        if self.interpolation != "bilinear":
            steps.append(self.interpolation)
        if self.channel_order != "RGB":
            steps.append(self.channel_order)
        if (self.mean, self.std) != (IMAGENET_MEAN, IMAGENET_STD):
            steps.append(f"mean {_numbers(self.mean)} and deviation {_numbers(self.std)}")
        return ", ".join(steps)

    def resized_shape(self, height: int, width: int) -> tuple[int, int]:
        """Returns height and width, in pixels, of an image after resizing.

        Raises:
            ValueError: the image is so narrow that it would have more than `MAX_PIXELS`.
        """
        high, wide, fits = self.resized_sides(height, width)
        if not fits:
            raise ValueError(f"{width} x {height} px with the shorter side brought to {self.resize_size} is too large")
        return high, wide

    def resized_sides(self, height, width):
        """Returns height and width of an image after resizing, and whether they fit into `MAX_PIXELS`.

        It is `resized_shape` for graphs too: int64 tensors give tensors. The sides of a square are Python's, and fit.
        """
        side = self.resize_size
        if self.resize == "square":
            return side, side, True
        longer = (height + width + abs(height - width)) // 2  # tensors in a graph have no `max`
        shorter = height + width - longer
        return side * height // shorter, side * width // shorter, side**2 * longer <= MAX_PIXELS * shorter

    def crop_box(self, height: int, width: int) -> tuple[int, int, int, int]:
        """Returns (top, left, bottom, right) of the centre crop of a resized image; tensors give tensors."""
        top, left = (half_to_even(side - self.image_size) for side in (height, width))
        return top, left, top + self.image_size, left + self.image_size

    def crop(self, image: np.ndarray) -> np.ndarray:
        """Returns the centre crop of one image after resizing, with values 0 to 255.

        Args:
            image: uint8 array (height, width, channels).

        Returns:
            float32 array (image_size, image_size, channels).
        """
        size = self.resized_shape(*image.shape[:2])
        top, left, bottom, right = self.crop_box(*size)
        return self.resized(image, size)[top:bottom, left:right]

    def resized(self, image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        """Resizes an image; its values stay in 0 to 255.

        Args:
            image: uint8 or float32 array (height, width, channels).
            size: height and width, in pixels.

        Returns:
            float32 array (*size, channels).
        """
        from polynet_keras.data.pixels import resized

        return resized(image, size, self.interpolation, self.antialias)

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """Returns the network's input for one image.

        Args:
            image: uint8 array (height, width, channels).

        Returns:
            float32 array (image_size, image_size, channels).
        """
        return self.normalize(self.crop(image))

    def normalize(self, images: np.ndarray) -> np.ndarray:
        """Normalizes crops, or views of another shape, for the network.

        Args:
            images: array (..., height, width, channels) of 3 or 4 dimensions, RGB, values 0 to 255.

        Returns:
            Array of the same shape.
        """
        from polynet_keras.data.pixels import normalize

        if self.channel_order == "BGR":
            images = images[..., ::-1]
        return normalize(images, self.mean, self.std, "channels_last")


def half_to_even(length):
    """Returns `round(length / 2)`, which tensors lack."""
    half = length // 2
    return half + (length % 2) * (half % 2)
