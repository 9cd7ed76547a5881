"""Decoding inside a tf.data pipeline: TensorFlow's decoders for what they read exactly, Pillow for the rest.

Folders of photographs hold everything: CMYK, 16 bits, palettes, animations, phones' orientations, and files that are no
images. TensorFlow decodes 8-bit JPEG (of which only a region, if that is what is wanted) and plain PNG, to the
same pixels as Pillow; whatever it refuses, and every other format, goes to `image_files.decode_image`.
"""

import errno
from collections.abc import Callable

import numpy as np
import tensorflow as tf
from absl import logging

from polynet_keras.basics.checks import check_choice
from polynet_keras.basics.tensorflow_errors import plain_message
from polynet_keras.data.budget import Budget
from polynet_keras.data.examples import Examples
from polynet_keras.data.image_files import decode_image
from polynet_keras.data.image_headers import (
    END_OF_IMAGE,
    JPEG_SIGNATURE,
    MAX_PIXELS,
    MAX_SCANS,
    PNG_SIGNATURE,
    START_OF_SCAN,
    claimed_pixels,
    jpeg_orientation,
)

ON_ERROR = ("error", "skip")
LISTED = 20
"""How many skipped images are listed by name."""

MAY_BE_ROTATED = r"\C*(Exif\x00\x00|tiff:Orientation)\C*"
"""In RE2, whose `.` is a character of UTF-8 and whose `\\C` is a byte."""
PLAIN_PNG = {1: b"\x08\x00", 3: b"\x08\x02"}
"""Bit depth and colour type of the PNGs that need no conversion, by the number of channels."""
UNPACKED_TEXTS = r"\C*(eXIf|zTXt|iTXt)\C*"
"""Behind the pixels of a PNG: an orientation, or texts that libpng would unpack to any size."""
PROGRESSIVE = b"\xff\xc2"
"""The marker of a progressive JPEG's frame, as most have it."""

LARGE_PIXELS = 16_000_000
"""Images above take turns: so much is 48 MB as RGB, for each thread of a pipeline."""
IN_WORK = Budget(2 * MAX_PIXELS)
"""Pixels of large images that are decoded and resized at once, in all pipelines of this process: two of the largest,
whatever the number of cores."""

OF_THE_FILE = (
    tf.errors.NotFoundError,
    tf.errors.PermissionDeniedError,
    tf.errors.DataLossError,
    tf.errors.InvalidArgumentError,
    tf.errors.OutOfRangeError,
    tf.errors.FailedPreconditionError,  # it is a folder
)
"""What is wrong with a file, and will be the next time; everything else is the storage's."""

Box = tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor]
"""(top, left, height, width) of a region, in pixels: int32 scalars."""


class Unreadable:
    """What to do about images that cannot be read, and which those were.

    Attributes:
        on_error: `"error"` ends the pipeline, `"skip"` goes on without the image.
        error: what ended the pipeline and names the image, where TensorFlow's own error does not: a `ValueError`, or an
            `OSError` where the storage failed and the image may be as good as any.
        skipped: for the index of each image that was skipped, why.
    """

    def __init__(self, on_error: str = "error"):
        check_choice("on_error", on_error, ON_ERROR)
        self.on_error = on_error
        self.error: ValueError | OSError | None = None
        self.skipped: dict[int, str] = {}

    def add(self, index: int, error: ValueError) -> None:
        if self.on_error == "error":
            self.error = self.error or error
            raise error
        self.skipped[index] = str(error)

    def log(self, count: int) -> None:
        """Lists what was skipped, of a dataset of `count` images."""
        if not self.skipped:
            return
        reasons = [self.skipped[index] for index in sorted(self.skipped)]
        more = f"\n  and {len(reasons) - LISTED} more" if len(reasons) > LISTED else ""
        listed = "\n  ".join(reasons[:LISTED])
        logging.warning("skipped %d of %d images that cannot be read:\n  %s%s", len(reasons), count, listed, more)


def whole(height: tf.Tensor, width: tf.Tensor) -> Box:
    return tf.zeros_like(height), tf.zeros_like(width), height, width


def decode_region(
    index: tf.Tensor,
    examples: Examples,
    unreadable: Unreadable,
    region: Callable[..., Box] = whole,
    finish: Callable[..., tuple[tf.Tensor, tf.Tensor]] | None = None,
    inputs: tuple[tf.Tensor, ...] = (),
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Reads an example and decodes a region of its image, inside a graph.

    Args:
        index: of the example, int64 scalar.
        examples: among which it is.
        unreadable: takes the images that cannot be read.
        region: from the upright image's height and width, int32 scalars, and `inputs` to the region.
        finish: from the region, uint8, the index and `inputs` to what is wanted of it, float32 of 3 dimensions, and
            whether that could be made; it is called in graphs and, for large images, with values. Of these, no more are
            in work at once than `IN_WORK` says.
        inputs: tensors that `region` and `finish` need.

    Returns:
        What `finish` gives, or without it the region, uint8 (height, width, channels); the label, an int64 scalar; and
        whether the image could be read, a bool scalar; if not, the first is empty, or what `finish` made of it.
    """
    channels = examples.channels
    nothing = tf.zeros((0, 0, channels), tf.uint8), tf.zeros((), tf.int64)
    most = MAX_PIXELS if finish is None else LARGE_PIXELS

    def box_of(height, width):
        return region(height, width, *inputs)

    def finished(image: tf.Tensor, label: tf.Tensor):
        if finish is None:
            return image, label, tf.constant(True)
        result, made = finish(image, index, *inputs)
        return result, label, made

    def with_tensorflow(index: tf.Tensor):
        encoded, label = examples.read(index)
        image = tf.cond(
            _is_plain(encoded, channels), lambda: _fast(encoded, channels, box_of, most), lambda: nothing[0]
        )
        return image, label

    def in_python():
        def read(index: np.int64, name: str) -> tuple[bytes, np.int64]:
            try:
                encoded, label = examples.read(tf.constant(index))
            except OF_THE_FILE as error:
                raise ValueError(f"{name}: cannot be read: {plain_message(error)}") from None
            except tf.errors.OpError as error:
                unreadable.error = OSError(errno.EIO, f"{name}: cannot be read: {plain_message(error)}")
                raise unreadable.error from None
            return encoded.numpy(), label.numpy()

        def decode(index: np.int64, *values: np.ndarray):
            name = examples.shown_name(int(index))
            nothing = np.zeros((0, 0, channels), "uint8"), np.zeros((0, 0, channels), "float32"), np.int64(0)
            try:
                encoded, label = read(index, name)
                pixels = MAX_PIXELS if finish is None else claimed_pixels(encoded)
                if finish is None or pixels <= LARGE_PIXELS:
                    return decode_image(encoded, channels, name), nothing[1], label
                with IN_WORK.held(pixels):
                    tensors = [tf.constant(value) for value in values]
                    image = _large_region(encoded, channels, name, lambda *sides: region(*sides, *tensors))
                    result, made = finish(image, tf.constant(index), *tensors)
                return nothing[0], result.numpy() if made else nothing[1], label
            except ValueError as error:
                unreadable.add(int(index), error)
            return nothing

        types = (tf.uint8, tf.float32, tf.int64)
        image, result, label = tf.numpy_function(decode, [index, *inputs], types, stateful=False)
        image, result = (tf.ensure_shape(one, (None, None, channels)) for one in (image, result))
        label = tf.ensure_shape(label, ())
        readable = tf.size(image) > 0
        if finish is None:
            return tf.cond(readable, lambda: _cut(image, box_of), lambda: nothing[0]), label, readable
        return tf.cond(
            readable, lambda: finished(_cut(image, box_of), label), lambda: (result, label, tf.size(result) > 0)
        )

    # An error of an operation would end the whole pipeline and name no file; that of a dataset can be ignored.
    attempt = tf.data.Dataset.from_tensors(index).map(with_tensorflow).ignore_errors()
    image, label = attempt.concatenate(tf.data.Dataset.from_tensors(nothing)).take(1).get_single_element()
    image = tf.ensure_shape(image, (None, None, channels))
    return tf.cond(tf.size(image) > 0, lambda: finished(image, label), in_python)


def _large_region(encoded: bytes, channels: int, name: str, region: Callable) -> tf.Tensor:
    tensor = tf.constant(encoded)
    if _is_plain(tensor, channels):
        try:
            image = _fast(tensor, channels, region, MAX_PIXELS)
        except tf.errors.OpError:
            image = tf.zeros(0)
        if tf.size(image) > 0:
            return image
    return _cut(tf.constant(decode_image(encoded, channels, name)), region)


def _cut(image: tf.Tensor, region: Callable[[tf.Tensor, tf.Tensor], Box]) -> tf.Tensor:
    height, width = tf.unstack(tf.shape(image)[:2])
    top, left, rows, columns = region(height, width)
    return image[top : top + rows, left : left + columns]


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


def _fast(encoded: tf.Tensor, channels: int, region: Callable, most: int) -> tf.Tensor:
    """The region by TensorFlow's decoders; raises, or is empty, for what they do not read as Pillow does."""
    is_png = tf.strings.substr(encoded, 0, 8) == PNG_SIGNATURE
    if channels == 1:
        return _png_region(encoded, channels, region, most)
    return tf.cond(
        is_png,
        lambda: _png_region(encoded, channels, region, most),
        lambda: _jpeg_region(encoded, channels, region, most),
    )


def _png_region(encoded: tf.Tensor, channels: int, region: Callable, most: int) -> tf.Tensor:
    sides = png_sides(encoded)
    # An operation beside the decoder would not keep it from decoding what is too large.
    return tf.cond(
        has_at_most(most, sides[0], sides[1]),
        lambda: _cut(tf.io.decode_png(encoded, channels), region),
        lambda: tf.zeros((0, 0, channels), tf.uint8),
    )


def _jpeg_region(encoded: tf.Tensor, channels: int, region: Callable, most: int) -> tf.Tensor:
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
        return _if_small(
            encoded, most, lambda rows, columns: _decoded(encoded, channels, region(rows, columns)), nothing
        )

    def looked_at() -> tf.Tensor:
        orientation = tf.numpy_function(_orientation, [encoded], tf.int32, stateful=False)
        orientation = tf.ensure_shape(orientation, ())

        def upright(rows: tf.Tensor, columns: tf.Tensor) -> tf.Tensor:
            return _upright_region(encoded, channels, region, rows, columns, orientation)

        return tf.cond(
            (orientation > 0) & (scans <= MAX_SCANS), lambda: _if_small(encoded, most, upright, nothing), nothing
        )

    return tf.cond(usual, as_stored, looked_at)


def _if_small(encoded: tf.Tensor, most: int, read: Callable, nothing: Callable) -> tf.Tensor:
    """`read` of the height and width, unless a JPEG is larger or is CMYK, whose colours TensorFlow sees differently."""
    shape = tf.io.extract_jpeg_shape(encoded)
    rows, columns = shape[0], shape[1]
    small = has_at_most(most, rows, columns)
    return tf.cond((shape[2] < 4) & small, lambda: read(rows, columns), nothing)


def _decoded(encoded: tf.Tensor, channels: int, box: Box) -> tf.Tensor:
    # As accurate as Pillow, and so the same pixels.
    return tf.image.decode_and_crop_jpeg(encoded, tf.stack(box), channels, dct_method="INTEGER_ACCURATE")


def _split(encoded: tf.Tensor, marker: bytes, most: int) -> tf.Tensor:
    return tf.raw_ops.StringSplitV2(input=encoded[tf.newaxis], sep=marker, maxsplit=most)[1]


def _upright_region(
    encoded: tf.Tensor,
    channels: int,
    region: Callable,
    rows: tf.Tensor,
    columns: tf.Tensor,
    orientation: tf.Tensor,
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
        image = _decoded(encoded, channels, stored)
        image = tf.cond(swapped, lambda: tf.transpose(image, (1, 0, 2)), lambda: image)
        image = tf.cond(flipped_down, lambda: image[::-1], lambda: image)
        return tf.cond(flipped_across, lambda: image[:, ::-1], lambda: image)

    return tf.cond(orientation == 1, lambda: _decoded(encoded, channels, region(rows, columns)), upright)


def png_sides(encoded: tf.Tensor) -> tf.Tensor:
    """int32 (2,): width and height, by the header; one of 2³¹ and more is below 0."""
    return tf.io.decode_raw(tf.strings.substr(encoded, 16, 8), tf.int32, little_endian=False)


def has_at_most(most: int, rows: tf.Tensor, columns: tf.Tensor) -> tf.Tensor:
    """Whether an image of these sides, int32, has pixels, and no more."""
    pixels = tf.cast(rows, tf.int64) * tf.cast(columns, tf.int64)
    return (pixels > 0) & (pixels <= most)


def _orientation(encoded: bytes | np.ndarray) -> np.int32:
    # Outside of a graph TensorFlow hands an array of no dimensions over.
    return np.int32(jpeg_orientation(encoded.item() if isinstance(encoded, np.ndarray) else encoded))
