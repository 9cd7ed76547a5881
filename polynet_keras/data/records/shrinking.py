"""Photographs that become smaller as they are written as records."""

import io
from dataclasses import dataclass

from polynet_keras.basics.checks import check_integer
from polynet_keras.data.image_files import decode_sized

QUALITY = 95
BYTES_OF_A_PIXEL = 0.5
"""Of a small photograph of that quality, as JPEG, about."""


@dataclass(frozen=True)
class Shrinking:
    """How large an image may be, and what a larger one becomes.

    Attributes:
        max_side: of the longer side, in pixels.
        quality: of the JPEG file that a larger image becomes, 1 to 100, as libjpeg counts.

    Raises:
        ValueError: a value out of range.
    """

    max_side: int
    quality: int = QUALITY

    def __post_init__(self):
        check_integer("max_side", self.max_side, 1)
        check_integer("quality", self.quality, 1, 100)

    @property
    def usual_bytes(self) -> int:
        """Of the file of a larger image."""
        return int(BYTES_OF_A_PIXEL * self.max_side**2)

    def __call__(self, encoded: bytes, name: str) -> tuple[bytes, tuple[int, int]]:
        """A file of the image, at most so large, and its height and width, in pixels.

        A file that is small enough stays as it is. A larger image becomes an RGB JPEG, upright, of the colours that
        `decode_image` reads, without a profile. It is decoded with twice the side at least, then filtered by Pillow.

        Args:
            encoded: the image file.
            name: what to call it in an error.

        Raises:
            ValueError: as `decode_image`.
        """
        pixels, size = decode_sized(encoded, 3, name, least_side=2 * self.max_side)
        if max(size) <= self.max_side:
            return encoded, size
        from PIL import Image

        image, file = Image.fromarray(pixels), io.BytesIO()
        image.thumbnail((self.max_side, self.max_side), Image.Resampling.LANCZOS)
        image.save(file, "JPEG", quality=self.quality)
        return file.getvalue(), (image.height, image.width)
