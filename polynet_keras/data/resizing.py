"""The arithmetic of the protocol inside a graph, fast and for one image at a time: resizing and normalizing."""

from collections.abc import Callable

import numpy as np
import tensorflow as tf

from polynet_keras.data.protocol import Preprocessing

LARGE = 6_000_000
"""Number of values in a large image; 24 MB as float32."""


def resize(image: tf.Tensor, size, preprocessing: Preprocessing) -> tf.Tensor:
    """Resizes as `Preprocessing.resized`; skips the filter if the image grows, since it would change nothing."""
    shrinks = tf.reduce_any(tf.shape(image)[:2] > size)
    return _resize_by(image, size, preprocessing, shrinks)


def resize_crop(image: tf.Tensor, size: int, preprocessing: Preprocessing) -> tf.Tensor:
    """Resizes a crop of random size. Down to half the side, it needs no filter to use every pixel, and is faster."""
    return _resize_by(image, (size, size), preprocessing, tf.reduce_any(tf.shape(image)[:2] > 2 * size))


def _resize_by(image: tf.Tensor, size, preprocessing: Preprocessing, filtered: tf.Tensor) -> tf.Tensor:
    # TensorFlow resizes bytes to the same values, in a quarter of the memory; small images it resizes faster as floats.
    return tf.cond(
        tf.size(image) > LARGE,
        lambda: _resize_as_it_is(image, size, preprocessing, filtered),
        lambda: _resize_as_it_is(tf.cast(image, tf.float32), size, preprocessing, filtered),
    )


def _resize_as_it_is(image: tf.Tensor, size, preprocessing: Preprocessing, filtered: tf.Tensor) -> tf.Tensor:
    method = preprocessing.interpolation
    if method == "bicubic":
        return tf.clip_by_value(tf.image.resize(image, size, method, antialias=True), 0, 255)
    if not preprocessing.antialias:
        return tf.image.resize(image, size, method)
    return tf.cond(
        filtered,
        lambda: tf.image.resize(image, size, method, antialias=True),
        lambda: tf.image.resize(image, size, method),
    )


def normalizer(preprocessing: Preprocessing) -> Callable[[tf.Tensor], tf.Tensor]:
    """Returns `Preprocessing.normalize` for one image, while it is in the CPU's cache.

    It works row by row: repeated multiplication by three numbers is many times slower than multiplication by a row of
    them."""
    shape = (preprocessing.image_size, preprocessing.image_size, preprocessing.channels)
    mean, std = np.array(preprocessing.mean), np.array(preprocessing.std)
    scale, offset = (
        tf.constant(np.tile(values, preprocessing.image_size), tf.float32) for values in (1 / (255 * std), -mean / std)
    )

    def normalize(image: tf.Tensor) -> tf.Tensor:
        if preprocessing.channel_order == "BGR":
            image = image[..., ::-1]
        rows = tf.reshape(image, (shape[0], -1))
        return tf.reshape(rows * scale + offset, shape)

    return normalize
