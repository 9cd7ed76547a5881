"""Shrinking of photographs as they are written as records."""

import io
from dataclasses import dataclass

from polynet_keras.basics.checks import check_integer
from polynet_keras.data.image_files import decode_sized

QUALITY = 95
BYTES_OF_A_PIXEL = 0.5
"""Approximate bytes per pixel of a small photograph of this quality, as JPEG."""


@dataclass(frozen=True)
class Shrinking:
    """The limit for an image's size, and the form of a larger image.

    Attributes:
        max_side: most pixels of the longer side.
        quality: quality of the JPEG file of a larger image, 1 to 100, on libjpeg's scale.

    Raises:
        ValueError: a value is out of range.
    """

    max_side: int
    quality: int = QUALITY

    def __post_init__(self):
        check_integer("max_side", self.max_side, 1)
        check_integer("quality", self.quality, 1, 100)

    @property
    def usual_bytes(self) -> int:
        """Usual bytes of the file of a larger image."""
        return int(BYTES_OF_A_PIXEL * self.max_side**2)

    def __call__(self, encoded: bytes, name: str) -> tuple[bytes, tuple[int, int]]:
        """Returns a file of the image within the limit, and its height and width, in pixels.

        A small enough file stays unchanged. A larger image becomes an upright RGB JPEG with the colours of
        `decode_image`, without a profile. It is decoded at twice the side or more, then filtered by Pillow.

        Args:
            encoded: the image file.
            name: name of the image in an error.

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
