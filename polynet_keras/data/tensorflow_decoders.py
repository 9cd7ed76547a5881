"""TensorFlow's decoders: a region of an 8-bit JPEG or a plain PNG, to the same pixels as Pillow.

Files that they would decode to other pixels, or that may contain more than the header claims, are left to Pillow.
"""

from collections.abc import Callable

import numpy as np
import tensorflow as tf

from polynet_keras.data.image_files import scaled_length
from polynet_keras.data.image_headers import (
    END_OF_IMAGE,
    JPEG_SIGNATURE,
    MAX_SCANS,
    PNG_SIGNATURE,
    START_OF_SCAN,
    jpeg_orientation,
)

MAY_BE_ROTATED = r"\C*(Exif\x00\x00|tiff:Orientation)\C*"
"""A pattern of RE2, whose `.` is a character of UTF-8 and whose `\\C` is a byte."""
PLAIN_PNG = {1: b"\x08\x00", 3: b"\x08\x02"}
"""Bit depth and colour type of the PNGs that need no conversion, by the number of channels."""
UNPACKED_TEXTS = r"\C*(eXIf|zTXt|iTXt)\C*"
"""Chunks after the pixels of a PNG: an orientation, or texts that libpng would unpack to any size."""
PROGRESSIVE = b"\xff\xc2"
"""The marker of most progressive JPEGs' frames."""

Box = tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor]
"""(top, left, height, width) of a region, in pixels: int32 scalars."""
Region = Callable[[tf.Tensor, tf.Tensor], Box]
"""A function from an upright image's height and width, int32 scalars."""
RATIOS = (1, 2, 4, 8)
"""Denominators of libjpeg's scales."""


def whole(height: tf.Tensor, width: tf.Tensor) -> Box:
    return tf.zeros_like(height), tf.zeros_like(width), height, width


def cut(image: tf.Tensor, region: Region | None) -> tf.Tensor:
    if region is None:
        return image
    height, width = tf.unstack(tf.shape(image)[:2])
    top, left, rows, columns = region(height, width)
    return image[top : top + rows, left : left + columns]


def decode_with_tensorflow(
    encoded: tf.Tensor, channels: int, region: Region | None, most: int, least_side: int | None
) -> tf.Tensor:
    """Decodes the region with TensorFlow; raises, or returns an empty one, for images that are left to Pillow."""
    is_own = _is_plain(encoded, channels)
    if region is None and least_side is not None:
        is_own &= ~_is_to_be_scaled(encoded, least_side)
    return tf.cond(
        is_own,
        lambda: _fast(encoded, channels, region or whole, most, least_side),
        lambda: tf.zeros((0, 0, channels), tf.uint8),
    )


def _is_to_be_scaled(encoded: tf.Tensor, least_side: int) -> tf.Tensor:
    return tf.cond(
        tf.strings.substr(encoded, 0, 3) == JPEG_SIGNATURE,
        lambda: tf.reduce_min(tf.io.extract_jpeg_shape(encoded)[:2]) >= 2 * least_side,
        lambda: False,
    )


def _is_plain(encoded: tf.Tensor, channels: int) -> tf.Tensor:
    """Whether TensorFlow may try: a JPEG for three channels, or a PNG that needs no conversion."""

    def bytes_at(position: int, length: int) -> tf.Tensor:
        return tf.strings.substr(encoded, position, length)

    def png() -> tf.Tensor:
        # Anything between the header and the pixels, or EXIF behind them, may change what the pixels mean.
        return (
            (bytes_at(0, 8) == PNG_SIGNATURE)
            & (bytes_at(24, 2) == PLAIN_PNG[channels])
            & (bytes_at(37, 4) == b"IDAT")
            & ~tf.strings.regex_full_match(encoded, UNPACKED_TEXTS)
        )

    long_enough = tf.strings.length(encoded) > 64
    if channels == 1:
        return tf.cond(long_enough, png, lambda: False)
    if channels != 3:
        return tf.constant(False)
    return tf.cond(long_enough, lambda: tf.cond(bytes_at(0, 3) == JPEG_SIGNATURE, lambda: True, png), lambda: False)


def _fast(encoded: tf.Tensor, channels: int, region: Region, most: int, least_side: int | None) -> tf.Tensor:
    """Decodes the region with TensorFlow; raises, or returns an empty one, if Pillow would read other pixels."""
    is_png = tf.strings.substr(encoded, 0, 8) == PNG_SIGNATURE
    if channels == 1:
        return _png_region(encoded, channels, region, most)
    return tf.cond(
        is_png,
        lambda: _png_region(encoded, channels, region, most),
        lambda: _jpeg_region(encoded, channels, region, most, least_side),
    )


def _png_region(encoded: tf.Tensor, channels: int, region: Region, most: int) -> tf.Tensor:
    sides = png_sides(encoded)
    # An operation beside the decoder would not keep it from decoding what is too large.
    return tf.cond(
        has_at_most(most, sides[0], sides[1]),
        lambda: cut(tf.io.decode_png(encoded, channels), region),
        lambda: tf.zeros((0, 0, channels), tf.uint8),
    )


def _jpeg_region(encoded: tf.Tensor, channels: int, region: Region, most: int, least_side: int | None) -> tf.Tensor:
    parts = _split(encoded, START_OF_SCAN, MAX_SCANS + 1)
    header, scans = parts[0], tf.size(parts) - 1
    # Only the header is searched: where a thumbnail's scan cuts it short there are two scans.
    usual = (
        (scans == 1)
        & (tf.strings.substr(encoded, -2, 2) == END_OF_IMAGE)
        & (tf.size(_split(header, PROGRESSIVE, 1)) == 1)
        & ~tf.strings.regex_full_match(header, MAY_BE_ROTATED)
    )

    def nothing() -> tf.Tensor:
        return tf.zeros((0, 0, channels), tf.uint8)

    def as_stored() -> tf.Tensor:
        def read(rows: tf.Tensor, columns: tf.Tensor) -> tf.Tensor:
            return decode_jpeg(encoded, channels, region(rows, columns), least_side)

        return _if_small(encoded, most, read, nothing)

    def looked_at() -> tf.Tensor:
        orientation = tf.numpy_function(_orientation, [encoded], tf.int32, stateful=False)
        orientation = tf.ensure_shape(orientation, ())

        def upright(rows: tf.Tensor, columns: tf.Tensor) -> tf.Tensor:
            return _upright_region(encoded, channels, region, rows, columns, orientation, least_side)

        return tf.cond(
            (orientation > 0) & (scans <= MAX_SCANS), lambda: _if_small(encoded, most, upright, nothing), nothing
        )

    return tf.cond(usual, as_stored, looked_at)


def _if_small(encoded: tf.Tensor, most: int, read: Callable, nothing: Callable) -> tf.Tensor:
    """Calls `read` with height and width, unless a JPEG is larger, or CMYK: TensorFlow gives it other colours."""
    shape = tf.io.extract_jpeg_shape(encoded)
    rows, columns = shape[0], shape[1]
    small = has_at_most(most, rows, columns)
    return tf.cond((shape[2] < 4) & small, lambda: read(rows, columns), nothing)


def decode_jpeg(encoded: tf.Tensor, channels: int, box: Box, least_side: int | None = None) -> tf.Tensor:
    """Decodes a region of a JPEG as it is stored; scaled if its shorter side is at least twice `least_side`."""
    if least_side is None:
        return _decoded(encoded, channels, box)
    times = tf.minimum(box[2], box[3]) // least_side

    def at(ratio: int) -> Callable[[], tf.Tensor]:
        return lambda: _decoded(encoded, channels, _scaled(box, ratio), ratio)

    exponent = tf.reduce_sum(tf.cast([times >= ratio for ratio in RATIOS[1:]], tf.int32))
    return tf.switch_case(exponent, [at(ratio) for ratio in RATIOS])


def _scaled(box: Box, ratio: int) -> Box:
    """Returns the box in the smaller image, in whole pixels, and never smaller than the rest of its sides."""
    top, left, height, width = box
    return top // ratio, left // ratio, scaled_length(height, ratio), scaled_length(width, ratio)


def _decoded(encoded: tf.Tensor, channels: int, box: Box, ratio: int = 1) -> tf.Tensor:
    # As accurate as Pillow, and so the same pixels.
    return tf.image.decode_and_crop_jpeg(encoded, tf.stack(box), channels, ratio, dct_method="INTEGER_ACCURATE")


def _split(encoded: tf.Tensor, marker: bytes, most: int) -> tf.Tensor:
    return tf.raw_ops.StringSplitV2(input=encoded[tf.newaxis], sep=marker, maxsplit=most)[1]


def _upright_region(
    encoded: tf.Tensor,
    channels: int,
    region: Region,
    rows: tf.Tensor,
    columns: tf.Tensor,
    orientation: tf.Tensor,
    least_side: int | None,
) -> tf.Tensor:
    # EXIF's orientations (CIPA DC-008, 4.6.4): 5 to 8 swap the axes; then what is upright comes by flips.
    swapped = orientation >= 5
    flipped_down = (orientation == 3) | (orientation == 4) | (orientation == 7) | (orientation == 8)
    flipped_across = (orientation == 2) | (orientation == 3) | (orientation == 6) | (orientation == 7)

    def upright() -> tf.Tensor:
        height, width = tf.cond(swapped, lambda: (columns, rows), lambda: (rows, columns))
        top, left, box_height, box_width = region(height, width)
        top = tf.where(flipped_down, height - top - box_height, top)
        left = tf.where(flipped_across, width - left - box_width, left)
        box = (top, left, box_height, box_width)
        stored = tf.cond(swapped, lambda: (left, top, box_width, box_height), lambda: box)
        image = decode_jpeg(encoded, channels, stored, least_side)
        image = tf.cond(swapped, lambda: tf.transpose(image, (1, 0, 2)), lambda: image)
        image = tf.cond(flipped_down, lambda: image[::-1], lambda: image)
        return tf.cond(flipped_across, lambda: image[:, ::-1], lambda: image)

    return tf.cond(orientation == 1, lambda: decode_jpeg(encoded, channels, region(rows, columns), least_side), upright)


def png_sides(encoded: tf.Tensor) -> tf.Tensor:
    """Returns width and height in the header, int32 (2,); values of 2³¹ and more are below 0."""
    return tf.io.decode_raw(tf.strings.substr(encoded, 16, 8), tf.int32, little_endian=False)


def has_at_most(most: int, rows: tf.Tensor, columns: tf.Tensor) -> tf.Tensor:
    """Whether an image of these sides, int32, has pixels, but at most `most`."""
    pixels = tf.cast(rows, tf.int64) * tf.cast(columns, tf.int64)
    return (pixels > 0) & (pixels <= most)


def _orientation(encoded: bytes | np.ndarray) -> np.int32:
    # Outside of a graph TensorFlow hands an array of no dimensions over.
    return np.int32(jpeg_orientation(encoded.item() if isinstance(encoded, np.ndarray) else encoded))
