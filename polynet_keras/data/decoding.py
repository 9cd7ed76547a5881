"""Decoding inside a tf.data pipeline: TensorFlow's decoders for files that they read exactly, Pillow for the rest.

Folders of photographs contain everything: CMYK, 16 bits, palettes, animations, phones' orientations, and files that are
not images. TensorFlow decodes 8-bit JPEG (only a region, if that is enough) and plain PNG, to the same pixels as
Pillow. Files that it refuses, and all other formats, go to `image_files.decode_image`. So does a whole JPEG that is
decoded at a smaller scale: Pillow's libjpeg is faster at that.
"""

import errno
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from polynet_keras.basics.tensorflow_errors import plain_message
from polynet_keras.data.budget import Budget
from polynet_keras.data.examples import Examples
from polynet_keras.data.image_files import decode_image
from polynet_keras.data.image_headers import MAX_PIXELS, claimed_pixels
from polynet_keras.data.tensorflow_decoders import Box, Region, cut, decode_with_tensorflow
from polynet_keras.data.unreadable import OF_THE_FILE, Unreadable

LARGE_PIXELS = 16_000_000
"""Pixels above which images take turns: 48 MB as RGB, for each thread of a pipeline."""
IN_WORK = Budget(2 * MAX_PIXELS)
"""Pixels of large images that are decoded and resized at once, in all pipelines of this process: two of the largest,
whatever the number of cores."""


def decode_region(
    index: tf.Tensor,
    examples: Examples,
    unreadable: Unreadable,
    region: Callable[..., Box] | None = None,
    finish: Callable[..., tuple[tf.Tensor, tf.Tensor]] | None = None,
    inputs: tuple[tf.Tensor, ...] = (),
    least_side: int | None = None,
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Reads an example and decodes a region of its image, inside a graph.

    Args:
        index: index of the example, int64 scalar.
        examples: the examples.
        unreadable: receives the images that cannot be read.
        region: function from the upright image's height and width, int32 scalars, and `inputs` to the region; by
            default the whole image.
        finish: function from the region, uint8, the index and `inputs` to the final result, float32 of 3 dimensions,
            and whether it could be made. It is called in graphs and, for large images, eagerly; `IN_WORK` limits the
            large images at once.
        inputs: tensors that `region` and `finish` need.
        least_side: as in `read_image`, for the region's shorter side. For a part of an image, only JPEGs that
            TensorFlow decodes are scaled, and the region becomes whole pixels of the smaller image.

    Returns:
        The result of `finish`, or without it the region, uint8 (height, width, channels); the label, an int64 scalar;
        and whether the image could be read, a bool scalar. If not, the first is empty, or the result of `finish`.
    """
    channels = examples.channels
    nothing = tf.zeros((0, 0, channels), tf.uint8), tf.zeros((), tf.int64)
    most = MAX_PIXELS if finish is None else LARGE_PIXELS
    side_of_whole = least_side if region is None else None

    part = None if region is None else lambda height, width: region(height, width, *inputs)

    def finished(image: tf.Tensor, label: tf.Tensor):
        if finish is None:
            return image, label, tf.constant(True)
        result, made = finish(image, index, *inputs)
        return result, label, made

    def with_tensorflow(index: tf.Tensor):
        encoded, label = examples.read(index)
        return decode_with_tensorflow(encoded, channels, part, most, least_side), label

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
                    return decode_image(encoded, channels, name, least_side=side_of_whole), nothing[1], label
                with IN_WORK.held(pixels):
                    tensors = [tf.constant(value) for value in values]
                    part = None if region is None else lambda *sides: region(*sides, *tensors)
                    image = _large_region(encoded, channels, name, part, least_side)
                    result, made = finish(image, tf.constant(index), *tensors)
                return nothing[0], result.numpy() if made else nothing[1], label
            except ValueError as error:
                unreadable.keep(int(index), error)
            return nothing

        types = (tf.uint8, tf.float32, tf.int64)
        image, result, label = tf.numpy_function(decode, [index, *inputs], types, stateful=False)
        image, result = (tf.ensure_shape(one, (None, None, channels)) for one in (image, result))
        label = tf.ensure_shape(label, ())
        image, result = tf.cond(
            (tf.size(image) > 0) | (tf.size(result) > 0),
            lambda: (image, result),
            lambda: tuple(unreadable.refused(image, result)),
        )
        image, result = (tf.ensure_shape(one, (None, None, channels)) for one in (image, result))
        readable = tf.size(image) > 0
        if finish is None:
            return tf.cond(readable, lambda: cut(image, part), lambda: nothing[0]), label, readable
        return tf.cond(
            readable, lambda: finished(cut(image, part), label), lambda: (result, label, tf.size(result) > 0)
        )

    # An operation's error would end the whole pipeline and name no file; a dataset's error can be ignored.
    attempt = tf.data.Dataset.from_tensors(index).map(with_tensorflow).ignore_errors()
    image, label = attempt.concatenate(tf.data.Dataset.from_tensors(nothing)).take(1).get_single_element()
    image = tf.ensure_shape(image, (None, None, channels))
    return tf.cond(tf.size(image) > 0, lambda: finished(image, label), in_python)


def _large_region(encoded: bytes, channels: int, name: str, region: Region | None, least_side: int | None) -> tf.Tensor:
    try:
        image = decode_with_tensorflow(tf.constant(encoded), channels, region, MAX_PIXELS, least_side)
    except tf.errors.OpError:
        image = tf.zeros(0)
    if tf.size(image) > 0:
        return image
    side = least_side if region is None else None
    return cut(tf.constant(decode_image(encoded, channels, name, least_side=side)), region)
