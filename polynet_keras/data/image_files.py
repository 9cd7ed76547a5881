"""Image files as pixels, by Pillow: whatever a header claims is checked before."""

import io
import os
from typing import TYPE_CHECKING

import numpy as np

from polynet_keras.basics.extras import require_extra
from polynet_keras.basics.files import open_regular
from polynet_keras.basics.names import shown
from polynet_keras.data.image_headers import (
    MAX_ENCODED_BYTES,
    MAX_PIXELS,
    Picture,
    TooLargeError,
    check_size,
    first_picture,
)

if TYPE_CHECKING:
    from PIL.Image import Image as PillowImage

CHANNELS = {1: "L", 3: "RGB", 4: "RGBA"}
"""Pillow's mode of an image of so many channels."""

UPRIGHT = {2: 0, 3: 3, 4: 1, 5: 5, 6: 4, 7: 6, 8: 2}
"""Pillow's `Transpose` that makes an image upright, by EXIF's orientation."""


def read_image(path: str | os.PathLike, channels: int) -> np.ndarray:
    """Decodes an image file.

    Args:
        path: a file of one of `image_headers.FORMATS`, whatever its name; of an animation, the first frame.
        channels: 1 (grey), 3 (RGB) or 4 (RGBA): what the image is converted to.

    Returns:
        uint8 array (height, width, channels), upright where the file's EXIF data says how it was held.

    Raises:
        TooLargeError: it claims more than a limit of `image_headers`, of which `MAX_PIXELS` is one.
        ValueError: the file is missing, is no image, is truncated, or has more than `MAX_ENCODED_BYTES` bytes.
    """
    return decode_image(read_encoded(path), channels, shown(path))


def read_encoded(path: str | os.PathLike) -> bytes:
    """The bytes of an image file.

    Raises:
        ValueError: the file is missing, is no regular file, or has more than `MAX_ENCODED_BYTES` bytes.
    """
    name = shown(path)
    try:
        file = open_regular(path)
    except OSError as error:
        raise ValueError(f"{name}: cannot be read as an image: {error.strerror or error}") from None
    except ValueError as error:
        raise ValueError(f"{name}: cannot be read as an image: it {error}") from None
    with file:
        try:
            # A file may grow between a look at its size and the reading.
            encoded = file.read(MAX_ENCODED_BYTES + 1)
        except OSError as error:
            raise ValueError(f"{name}: cannot be read as an image: {error.strerror or error}") from None
        if len(encoded) > MAX_ENCODED_BYTES:
            size = max(os.fstat(file.fileno()).st_size, len(encoded))
            raise ValueError(f"{name}: {size:,} bytes are over the limit of {MAX_ENCODED_BYTES:,}")
    return encoded


def decode_image(encoded: bytes, channels: int, name: str, max_pixels: int | None = None) -> np.ndarray:
    """Decodes what an image file holds; as `read_image`, which it is the other half of.

    Args:
        encoded: the bytes of the file.
        channels: 1 (grey), 3 (RGB) or 4 (RGBA): what the image is converted to.
        name: what to call the image in an error.
        max_pixels: of the image; by default `MAX_PIXELS`.

    Raises:
        TooLargeError: it claims more than a limit of `image_headers`.
        ValueError: no image, or a truncated one.
    """
    require_extra("data", "PIL")
    from PIL import Image

    max_pixels = max_pixels or MAX_PIXELS
    try:
        picture = first_picture(encoded, max_pixels)
        with Image.open(io.BytesIO(picture.encoded), formats=(picture.format,)) as image:
            check_size(image.width, image.height, max_pixels)
            image.load()
            pixels = _converted(image, picture, channels)
    except TooLargeError as error:
        raise TooLargeError(f"{name}: {error}") from None
    except Image.UnidentifiedImageError:
        raise ValueError(
            f"{name}: cannot be read as an image: its header is damaged, or of a kind that is not read; convert it"
        ) from None
    except Exception as error:  # Pillow's readers raise nearly everything of files that were made to harm
        raise ValueError(f"{name}: cannot be read as an image: {error}") from None
    return pixels.reshape(*pixels.shape[:2], channels)


def _converted(image: "PillowImage", picture: Picture, channels: int) -> np.ndarray:
    from PIL import Image

    mode = CHANNELS[channels]
    if image.mode.startswith(("I", "F")):
        image = Image.fromarray(_eight_bits(np.asarray(image), picture.bits, picture.inverted))
    if channels < 4:
        image.info.pop("transparency", None)  # alpha is dropped, and Pillow warns of some of it
    if image.mode == "LAB" and channels == 1:  # which Pillow has no way to
        image = image.convert("RGB")
    if image.mode != mode:
        image = image.convert(mode)
    if picture.orientation > 1:
        image = image.transpose(Image.Transpose(UPRIGHT[picture.orientation]))
    return np.asarray(image, dtype="uint8")


def _eight_bits(pixels: np.ndarray, bits: int, inverted: bool) -> np.ndarray:
    """Deep grey as eight bits, the upper ones: Pillow's own conversion would clip, not scale."""
    if not np.issubdtype(pixels.dtype, np.integer) or pixels.min() < 0 or pixels.max() >= 1 << bits:
        raise ValueError("its pixels are neither 8 nor 16 bit; convert it to one of these")
    grey = (pixels >> (bits - 8)).astype("uint8")
    return 255 - grey if inverted else grey
