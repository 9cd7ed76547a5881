"""The distortions in policies: Pillow's operations on one image, with a tensor as strength.

Keras's layers draw a strength from a range that is fixed at construction, and some draw a different quantity than
policies define. These operations take the strength that a policy has drawn. Images are float32 (height, width, 3) of
values 0 to 255, before and after. Pillow rounds to 8 bits after each operation; these operations round only where
Pillow's is a table of 256 values.
"""

from collections.abc import Callable

import numpy as np
import tensorflow as tf

GREY = (0.299, 0.587, 0.114)
"""Weights of red, green and blue in a pixel's brightness, as in Pillow (ITU-R 601-2)."""

Operation = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]


def identity(image: tf.Tensor, strength: tf.Tensor) -> tf.Tensor:
    return image


def brightness(image: tf.Tensor, factor: tf.Tensor) -> tf.Tensor:
    return _bounded(image * factor)


def color(image: tf.Tensor, factor: tf.Tensor) -> tf.Tensor:
    return _blended(_light(image), image, factor)


def contrast(image: tf.Tensor, factor: tf.Tensor) -> tf.Tensor:
    return _blended(tf.floor(tf.reduce_mean(_light(image)) + 0.5), image, factor)


def sharpness(image: tf.Tensor, factor: tf.Tensor) -> tf.Tensor:
    kernel = np.full((3, 3, 3, 1), 1 / 13, "float32")
    kernel[1, 1] = 5 / 13
    inner = tf.nn.depthwise_conv2d(image[tf.newaxis], kernel, (1, 1, 1, 1), "VALID")[0]
    # The outermost pixels stay as they are.
    inside = tf.pad(tf.ones_like(inner), ((1, 1), (1, 1), (0, 0)))
    smooth = tf.where(inside > 0, tf.pad(inner, ((1, 1), (1, 1), (0, 0))), image)
    return _blended(smooth, image, factor)


def posterize(image: tf.Tensor, bits: tf.Tensor) -> tf.Tensor:
    """Keeps `bits` of the 8 bits of each value."""
    step = tf.pow(2.0, 8.0 - tf.floor(bits))
    return tf.floor(_whole(image) / step) * step


def solarize(image: tf.Tensor, threshold: tf.Tensor) -> tf.Tensor:
    """Inverts values at or above the threshold."""
    image = _whole(image)
    return tf.where(image < threshold, image, 255.0 - image)


def solarize_add(image: tf.Tensor, more: tf.Tensor) -> tf.Tensor:
    """Brightens values below 128."""
    image = _whole(image)
    return tf.where(image < 128.0, _bounded(image + more), image)


def invert(image: tf.Tensor, strength: tf.Tensor) -> tf.Tensor:
    return 255.0 - image


def auto_contrast(image: tf.Tensor, strength: tf.Tensor) -> tf.Tensor:
    """Stretches each channel to 0 to 255."""
    low, high = (reduce(image, axis=(0, 1), keepdims=True) for reduce in (tf.reduce_min, tf.reduce_max))
    stretched = (image - low) * 255.0 / tf.maximum(high - low, 1e-6)
    return tf.where(high - low >= 1.0, _bounded(stretched), image)


def equalize(image: tf.Tensor, strength: tf.Tensor) -> tf.Tensor:
    """Equalizes the histogram of each channel."""
    channels = [_equalized(channel) for channel in tf.unstack(tf.cast(_whole(image), tf.int32), axis=-1)]
    return tf.stack(channels, axis=-1)


def _equalized(channel: tf.Tensor) -> tf.Tensor:
    histogram = tf.math.bincount(tf.reshape(channel, (-1,)), minlength=256, maxlength=256)
    there = tf.boolean_mask(histogram, histogram > 0)
    step = (tf.reduce_sum(there) - there[-1]) // 255
    table = (step // 2 + tf.cumsum(histogram, exclusive=True)) // tf.maximum(step, 1)
    table = tf.where(step > 0, tf.minimum(table, 255), tf.range(256))
    return tf.cast(tf.gather(table, channel), tf.float32)


def shear_x(fill: tuple[float, ...]) -> Operation:
    return lambda image, share: _moved(image, (1.0, share, 0.0, 0.0, 1.0, 0.0), fill)


def shear_y(fill: tuple[float, ...]) -> Operation:
    return lambda image, share: _moved(image, (1.0, 0.0, 0.0, share, 1.0, 0.0), fill)


def translate_x(fill: tuple[float, ...]) -> Operation:
    return lambda image, pixels: _moved(image, (1.0, 0.0, pixels, 0.0, 1.0, 0.0), fill)


def translate_y(fill: tuple[float, ...]) -> Operation:
    return lambda image, pixels: _moved(image, (1.0, 0.0, 0.0, 0.0, 1.0, pixels), fill)


def rotate(fill: tuple[float, ...]) -> Operation:
    """Returns an operation that rotates an image around its centre, by degrees."""

    def rotated(image: tf.Tensor, degrees: tf.Tensor) -> tf.Tensor:
        angle = -degrees * np.pi / 180
        cos, sin = tf.cos(angle), tf.sin(angle)
        y, x = (tf.cast(side, tf.float32) / 2 for side in tf.unstack(tf.shape(image)[:2]))
        return _moved(image, (cos, sin, x - cos * x - sin * y, -sin, cos, y + sin * x - cos * y), fill)

    return rotated


def _moved(image: tf.Tensor, matrix: tuple, fill: tuple[float, ...]) -> tf.Tensor:
    """Computes Pillow's `transform` with `AFFINE` and `BILINEAR`.

    (a, b, c, d, e, f) map a place in the result to one in the image. Pixels are squares, with centres at halves."""
    a, b, c, d, e, f = (tf.convert_to_tensor(number, tf.float32) for number in matrix)
    # TensorFlow counts centres of pixels.
    transform = tf.stack([a, b, c + (a + b - 1) / 2, d, e, f + (d + e - 1) / 2, 0.0, 0.0])
    colour = tf.constant(fill, tf.float32)
    moved = tf.raw_ops.ImageProjectiveTransformV3(
        images=(image - colour)[tf.newaxis],
        transforms=transform[tf.newaxis],
        output_shape=tf.shape(image)[:2],
        fill_value=0.0,
        interpolation="BILINEAR",
        fill_mode="CONSTANT",
    )[0]
    return tf.ensure_shape(moved + colour, image.shape)


def _light(image: tf.Tensor) -> tf.Tensor:
    return tf.reduce_sum(image * tf.constant(GREY), axis=-1, keepdims=True)


def _blended(other: tf.Tensor, image: tf.Tensor, factor: tf.Tensor) -> tf.Tensor:
    return _bounded(other + (image - other) * factor)


def _bounded(image: tf.Tensor) -> tf.Tensor:
    return tf.clip_by_value(image, 0.0, 255.0)


def _whole(image: tf.Tensor) -> tf.Tensor:
    return tf.round(image)
