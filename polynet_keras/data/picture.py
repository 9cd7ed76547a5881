"""A file's claims about its first picture, and the check of its size."""

from dataclasses import dataclass


class TooLargeError(ValueError):
    """Raised for an image that claims more than a limit allows."""


@dataclass(frozen=True)
class Picture:
    """A file's claims about its first picture.

    Attributes:
        format: one of `image_headers.FORMATS`.
        width, height: in pixels, as stored.
        encoded: a file of this picture alone.
        orientation: EXIF's, 1 to 8.
        bits: bits of a sample of deep grey.
        inverted: whether 0 is white in deep grey.
    """

    format: str
    width: int
    height: int
    encoded: bytes
    orientation: int = 1
    bits: int = 16
    inverted: bool = False


def check_size(width: int, height: int, max_pixels: int) -> None:
    if width * height > max_pixels:
        raise TooLargeError(f"{width} x {height} px is over the limit of {max_pixels:,} pixels")
    if min(width, height) < 1:
        raise ValueError(f"it claims {width} x {height} px")
