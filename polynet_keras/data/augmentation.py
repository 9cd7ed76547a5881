"""Augmentation of training images: the poster's random crop."""

import tensorflow as tf


def random_crop(image: tf.Tensor, size: int, seed: tf.Tensor) -> tf.Tensor:
    """A square cut from anywhere in the image, each position as likely as another.

    Args:
        image: tensor (height, width, channels), sides at least `size`.
        size: side of the crop, in pixels.
        seed: int tensor (2,): the same seed cuts at the same place.

    Returns:
        Tensor (size, size, channels).
    """
    return tf.image.stateless_random_crop(image, (size, size, image.shape[-1]), seed)
