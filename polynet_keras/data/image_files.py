"""Decodes image files with Pillow, after checks of everything that a header claims."""

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
from polynet_keras.data.image_headers import HEAD, MAX_ENCODED_BYTES, MAX_PIXELS, first_picture
from polynet_keras.data.picture import Picture, TooLargeError, check_size

if TYPE_CHECKING:
    from PIL.Image import Image as PillowImage

CHANNELS = {1: "L", 3: "RGB", 4: "RGBA"}
"""Pillow's mode of an image by its number of channels."""

ON_ERROR = ("error", "skip")
"""Ways to handle an image that cannot be read."""

UPRIGHT = {2: 0, 3: 3, 4: 1, 5: 5, 6: 4, 7: 6, 8: 2}
"""Pillow's `Transpose` that makes an image upright, by EXIF orientation."""
TURNED = range(5, 9)
"""Orientations of images whose rows are columns of the upright image."""


def read_image(path: str | os.PathLike, channels: int, least_side: int | None = None) -> np.ndarray:
    """Decodes an image file.

    Args:
        path: a file of one of `image_headers.FORMATS`, whatever its name; of an animation, the first frame is read.
        channels: 1 (grey), 3 (RGB) or 4 (RGBA), to which the image is converted.
        least_side: pixels needed in the shorter side: a JPEG with at least twice as many is decoded at 1/2, 1/4 or
            1/8, as long as enough pixels remain. By default every pixel is decoded.

    Returns:
        uint8 array (height, width, channels), upright if the file has EXIF orientation.

    Raises:
        TooLargeError: the file claims more than a limit of `image_headers`, such as `MAX_PIXELS`.
        ValueError: the file is missing, is not an image, is truncated, or has more than `MAX_ENCODED_BYTES` bytes.

    Examples:
        >>> image = read_image(photos / "cat" / "1.jpg", channels=3)
        >>> image.shape, image.dtype.name
        ((24, 24, 3), 'uint8')
    """
    return decode_image(read_encoded(path), channels, shown(path), least_side=least_side)


def file_size(path: str | os.PathLike) -> int:
    """Returns the size of an image file in bytes, without opening it.

    Raises:
        ValueError: as `read_encoded`.
    """
    with _errors_name(path):
        status = os.stat(path)
        check_regular(status.st_mode)
    _check_encoded_size(path, status.st_size)
    return status.st_size


def read_encoded(path: str | os.PathLike) -> bytes:
    """Returns the bytes of an image file.

    Raises:
        ValueError: the file is missing, is not a regular file, or has more than `MAX_ENCODED_BYTES` bytes.
    """
    with _errors_name(path), open_regular(path) as file:
        # A file may grow between a look at its size and the reading.
        encoded = file.read(MAX_ENCODED_BYTES + 1)
        size = max(os.fstat(file.fileno()).st_size, len(encoded))
    _check_encoded_size(path, size)
    return encoded


def read_picture(path: str | os.PathLike) -> Picture:
    """Reads the header of an image file; usually it reads no more of the file.

    Raises:
        OSError: the file cannot be opened.
        ValueError: as `image_headers.first_picture`, or the file is not a regular file.
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
    """Adds the file's name to a `ValueError`; an `OSError` of failing storage stays, since the image may be good."""
    try:
        yield
    except (OSError, ValueError) as error:
        if isinstance(error, OSError) and error.errno in TRANSIENT:  # an error of the storage, not of the image
            raise OSError(error.errno, f"{shown(path)}: cannot be read: {error.strerror}") from None
        if isinstance(error, FileNotFoundError | NotADirectoryError):
            raise ValueError(f"{shown(path)}: no such file") from None
        reason = str(getattr(error, "strerror", None) or error)
        reason = f"it {reason}" if reason.startswith("is ") else reason
        raise ValueError(f"{shown(path)}: cannot be read as an image: {reason}") from None


def _check_encoded_size(path: str | os.PathLike, size: int) -> None:
    if size > MAX_ENCODED_BYTES:
        raise ValueError(f"{shown(path)}: {size:,} bytes are over the limit of {MAX_ENCODED_BYTES:,}")


def decode_image(
    encoded: bytes, channels: int, name: str, max_pixels: int | None = None, least_side: int | None = None
) -> np.ndarray:
    """Decodes the bytes of an image file: the second half of `read_image`.

    Args:
        encoded: the bytes of the file.
        channels: 1 (grey), 3 (RGB) or 4 (RGBA), to which the image is converted.
        name: name of the image in an error.
        max_pixels: most pixels of the image; by default `MAX_PIXELS`.
        least_side: as in `read_image`.

    Raises:
        TooLargeError: the image claims more than a limit of `image_headers`.
        ValueError: the bytes are not an image, or a truncated one.
    """
    return decode_sized(encoded, channels, name, max_pixels, least_side)[0]


def decode_sized(
    encoded: bytes, channels: int, name: str, max_pixels: int | None = None, least_side: int | None = None
) -> tuple[np.ndarray, tuple[int, int]]:
    """Returns the result of `decode_image`, and height and width, in pixels, of the upright image before scaling."""
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
    """Returns the nearest number of pixels at 1/ratio to a length; also for tensors."""
    return (length + ratio // 2) // ratio


def _to_nearest(image: "PillowImage", box: tuple[float, ...]) -> "PillowImage":
    """Removes a scaled image's last row or column if the file covers less than half of it, as in `scaled_length`.

    libjpeg fills up such a pixel; counted as a whole one, it would shift all others by up to as much.
    """
    size = int(box[2] + 0.5), int(box[3] + 0.5)
    return image if size == image.size else image.crop((0, 0, *size))


def _converted(image: "PillowImage", picture: Picture, channels: int) -> np.ndarray:
    from PIL import Image

    mode = CHANNELS[channels]
    if image.mode.startswith(("I", "F")):
        image = Image.fromarray(_eight_bits(np.asarray(image), picture.bits, picture.inverted))
    if channels < 4:
        image.info.pop("transparency", None)  # alpha is dropped; Pillow would warn about some kinds
    if image.mode == "LAB" and channels == 1:  # Pillow cannot convert this
        image = image.convert("RGB")
    if image.mode != mode:
        image = image.convert(mode)
    if picture.orientation > 1:
        image = image.transpose(Image.Transpose(UPRIGHT[picture.orientation]))
    return np.asarray(image, dtype="uint8")


def _eight_bits(pixels: np.ndarray, bits: int, inverted: bool) -> np.ndarray:
    """Converts deep grey to its upper eight bits: Pillow's own conversion would clip, not scale."""
    if not np.issubdtype(pixels.dtype, np.integer) or pixels.min() < 0 or pixels.max() >= 1 << bits:
        raise ValueError("its pixels are neither 8 nor 16 bit; convert it to one of these")
    grey = (pixels >> (bits - 8)).astype("uint8")
    return 255 - grey if inverted else grey
