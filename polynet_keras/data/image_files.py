"""Image files as pixels, by Pillow: whatever a header claims is checked before."""

import contextlib
import io
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from polynet_keras.basics.exits import TRANSIENT
from polynet_keras.basics.extras import require_extra
from polynet_keras.basics.files import check_regular, open_regular
from polynet_keras.basics.names import shown
from polynet_keras.data.image_headers import (
    HEAD,
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

ON_ERROR = ("error", "skip")
"""What can be done about an image that cannot be read."""

UPRIGHT = {2: 0, 3: 3, 4: 1, 5: 5, 6: 4, 7: 6, 8: 2}
"""Pillow's `Transpose` that makes an image upright, by EXIF's orientation."""
TURNED = range(5, 9)
"""Orientations of images whose rows are columns of the upright image."""


def read_image(path: str | os.PathLike, channels: int, least_side: int | None = None) -> np.ndarray:
    """Decodes an image file.

    Args:
        path: a file of one of `image_headers.FORMATS`, whatever its name; of an animation, the first frame.
        channels: 1 (grey), 3 (RGB) or 4 (RGBA): what the image is converted to.
        least_side: pixels that are needed of the shorter side: a JPEG that has at least twice as many is decoded at
            1/2, 1/4 or 1/8, as far as it leaves them. By default every pixel is decoded.

    Returns:
        uint8 array (height, width, channels), upright where the file's EXIF data says how it was held.

    Raises:
        TooLargeError: it claims more than a limit of `image_headers`, of which `MAX_PIXELS` is one.
        ValueError: the file is missing, is no image, is truncated, or has more than `MAX_ENCODED_BYTES` bytes.
    """
    return decode_image(read_encoded(path), channels, shown(path), least_side=least_side)


def file_size(path: str | os.PathLike) -> int:
    """The bytes of an image file, without opening it.

    Raises:
        ValueError: as `read_encoded`.
    """
    with _errors_name(path):
        status = os.stat(path)
        check_regular(status.st_mode)
    _check_encoded_size(path, status.st_size)
    return status.st_size


def read_encoded(path: str | os.PathLike) -> bytes:
    """The bytes of an image file.

    Raises:
        ValueError: the file is missing, is no regular file, or has more than `MAX_ENCODED_BYTES` bytes.
    """
    with _errors_name(path), open_regular(path) as file:
        # A file may grow between a look at its size and the reading.
        encoded = file.read(MAX_ENCODED_BYTES + 1)
        size = max(os.fstat(file.fileno()).st_size, len(encoded))
    _check_encoded_size(path, size)
    return encoded


def read_picture(path: str | os.PathLike) -> Picture:
    """The header of an image file, of which no more is read than that takes, as a rule.

    Raises:
        OSError: the file cannot be opened.
        ValueError: as `image_headers.first_picture`, or it is no regular file.
    """
    with open_regular(path) as file:
        head = file.read(HEAD)
        try:
            return first_picture(head)
        except ValueError:
            if len(head) < HEAD:
                raise
        return first_picture(head + file.read(MAX_ENCODED_BYTES - HEAD))


@contextlib.contextmanager
def _errors_name(path: str | os.PathLike) -> Iterator[None]:
    """Names the file in a `ValueError`; an `OSError` of storage that fails stays one, since the image may be good."""
    try:
        yield
    except (OSError, ValueError) as error:
        if isinstance(error, OSError) and error.errno in TRANSIENT:  # the storage's, and not the image's
            raise OSError(error.errno, f"{shown(path)}: cannot be read: {error.strerror}") from None
        reason = str(getattr(error, "strerror", None) or error)
        reason = f"it {reason}" if reason.startswith("is ") else reason
        raise ValueError(f"{shown(path)}: cannot be read as an image: {reason}") from None


def _check_encoded_size(path: str | os.PathLike, size: int) -> None:
    if size > MAX_ENCODED_BYTES:
        raise ValueError(f"{shown(path)}: {size:,} bytes are over the limit of {MAX_ENCODED_BYTES:,}")


def decode_image(
    encoded: bytes, channels: int, name: str, max_pixels: int | None = None, least_side: int | None = None
) -> np.ndarray:
    """Decodes what an image file holds; as `read_image`, which it is the other half of.

    Args:
        encoded: the bytes of the file.
        channels: 1 (grey), 3 (RGB) or 4 (RGBA): what the image is converted to.
        name: what to call the image in an error.
        max_pixels: of the image; by default `MAX_PIXELS`.
        least_side: as of `read_image`.

    Raises:
        TooLargeError: it claims more than a limit of `image_headers`.
        ValueError: no image, or a truncated one.
    """
    return decode_sized(encoded, channels, name, max_pixels, least_side)[0]


def decode_sized(
    encoded: bytes, channels: int, name: str, max_pixels: int | None = None, least_side: int | None = None
) -> tuple[np.ndarray, tuple[int, int]]:
    """What `decode_image` returns, and the height and width, in pixels, of the upright image before it was scaled."""
    require_extra("data", "PIL")
    from PIL import Image

    max_pixels = max_pixels or MAX_PIXELS
    try:
        picture = first_picture(encoded, max_pixels)
        with Image.open(io.BytesIO(picture.encoded), formats=(picture.format,)) as image:
            check_size(image.width, image.height, max_pixels)
            width, height = image.size
            # Only JPEGs know it.
            drafted = None if least_side is None else image.draft(None, (least_side, least_side))
            image.load()
            pixels = _converted(_to_nearest(image, drafted[1]) if drafted else image, picture, channels)
    except TooLargeError as error:
        raise TooLargeError(f"{name}: {error}") from None
    except Image.UnidentifiedImageError:
        raise ValueError(
            f"{name}: cannot be read as an image: its header is damaged, or of a kind that is not read; convert it"
        ) from None
    except Exception as error:  # Pillow's readers raise nearly everything of files that were made to harm
        raise ValueError(f"{name}: cannot be read as an image: {error}") from None
    size = (width, height) if picture.orientation in TURNED else (height, width)
    return pixels.reshape(*pixels.shape[:2], channels), size


def scaled_length(length, ratio: int):
    """How many pixels of one at 1/ratio are nearest to a length; of tensors, tensors."""
    return (length + ratio // 2) // ratio


def _to_nearest(image: "PillowImage", box: tuple[float, ...]) -> "PillowImage":
    """A scaled image without a last row or column of which less than half is in the file's, as `scaled_length` has it.

    libjpeg fills such a pixel up; taken for a whole one, it would move all others by up to as much.
    """
    size = int(box[2] + 0.5), int(box[3] + 0.5)
    return image if size == image.size else image.crop((0, 0, *size))


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
