"""From a source's images to the batches that `fit` and `evaluate` take, as tf.data datasets."""

import keras
import numpy as np
import tensorflow as tf

from polynet_keras.data.augmentation import random_crop
from polynet_keras.data.preprocessing import Preprocessing
from polynet_keras.data.sources import Images

CACHED_BYTES = 1 << 30
"""Resized images are kept in memory, after the first epoch, while they fit in this."""


class Reader:
    """Reads images inside a tf.data pipeline, and keeps the error that TensorFlow would bury in its own.

    Attributes:
        error: what made reading fail, a `ValueError` that names the file; `None` while all is well.
    """

    def __init__(self, images: Images):
        self.images = images
        self.error: ValueError | None = None

    def __call__(self, index):
        try:
            return self.images.read(int(index))
        except ValueError as error:
            self.error = error
            raise


def training_batches(reader: Reader, preprocessing: Preprocessing, batch_size: int, seed: int) -> tf.data.Dataset:
    """Shuffled batches of randomly cropped images, another order and other crops each epoch.

    Returns:
        Dataset of (images, labels): float32 (batch, size, size, channels), or (batch, channels, size, size) under the
        data format channels_first, and int64 (batch,). The last batch of an epoch holds what is left.
    """
    size = preprocessing.image_size
    crop_seeds = tf.data.Dataset.random(seed, rerandomize_each_iteration=True).batch(2)
    dataset = tf.data.Dataset.zip(_resized(reader, preprocessing, shuffle_seed=seed), crop_seeds)
    dataset = dataset.map(
        lambda example, seeds: (random_crop(example[0], size, seeds), example[1]), num_parallel_calls=tf.data.AUTOTUNE
    )
    return _batched(dataset, preprocessing, batch_size)


def evaluation_batches(reader: Reader, preprocessing: Preprocessing, batch_size: int) -> tf.data.Dataset:
    """Batches of centre crops in the source's order: what `Preprocessing` gives, image by image."""

    def crop(image, label):
        height, width = tf.unstack(tf.shape(image)[:2])
        top, left, bottom, right = preprocessing.crop_box(height, width)
        return tf.ensure_shape(image[top:bottom, left:right], (size, size, preprocessing.channels)), label

    size = preprocessing.image_size
    dataset = _resized(reader, preprocessing).map(crop)
    return _batched(dataset, preprocessing, batch_size)


def _resized(reader: Reader, preprocessing: Preprocessing, shuffle_seed: int | None = None) -> tf.data.Dataset:
    """(float32 image of 0 to 255 at `resize_size`, label), shuffled, or in the source's order without a seed."""
    side, channels = preprocessing.resize_size, preprocessing.channels

    def read_with_size(index):
        image = reader(index)
        return image, np.array(preprocessing.resized_shape(*image.shape[:2]), "int32")

    def read(index, label):
        image, size = tf.numpy_function(read_with_size, [index], (tf.uint8, tf.int32), stateful=False)
        image = tf.ensure_shape(image, (None, None, channels))
        size = (side, side) if preprocessing.resize == "square" else tf.ensure_shape(size, (2,))
        image = tf.cast(image, tf.float32)
        return tf.image.resize(image, size, method="bilinear", antialias=preprocessing.antialias), label

    count = len(reader.images)

    def shuffled(dataset: tf.data.Dataset) -> tf.data.Dataset:
        # Over all examples: sources list class by class, and a smaller buffer would serve one class after another.
        return dataset if shuffle_seed is None else dataset.shuffle(count, shuffle_seed, reshuffle_each_iteration=True)

    examples = tf.data.Dataset.zip(
        tf.data.Dataset.range(count), tf.data.Dataset.from_tensor_slices(reader.images.labels)
    )
    if count * side * side * channels * 4 <= CACHED_BYTES:
        return shuffled(examples.map(read, num_parallel_calls=tf.data.AUTOTUNE).cache())
    return shuffled(examples).map(read, num_parallel_calls=tf.data.AUTOTUNE)


def _batched(dataset: tf.data.Dataset, preprocessing: Preprocessing, batch_size: int) -> tf.data.Dataset:
    mean, std = tf.constant(preprocessing.mean), tf.constant(preprocessing.std)
    channels_first = keras.config.image_data_format() == "channels_first"

    def normalize(images, labels):
        images = (images / 255.0 - mean) / std
        return tf.transpose(images, (0, 3, 1, 2)) if channels_first else images, labels

    return dataset.batch(batch_size).map(normalize, num_parallel_calls=tf.data.AUTOTUNE).prefetch(tf.data.AUTOTUNE)
