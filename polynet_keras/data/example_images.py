"""One example as a network's input, inside a graph: augmented, or its centre crop."""

from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf

from polynet_keras.data.augmentation import Augmentation
from polynet_keras.data.decoding import decode_region
from polynet_keras.data.distortion import Distortion, example_seed, random_crop, random_resized_box
from polynet_keras.data.examples import Examples
from polynet_keras.data.protocol import Preprocessing
from polynet_keras.data.resizing import normalizer, resize, resize_crop
from polynet_keras.data.sampling import next_of_class
from polynet_keras.data.unreadable import Unreadable

ATTEMPTS = 100
"""Number of consecutive unreadable images that is no accident: skipping ends there."""


def augmented_example(
    examples: Examples,
    preprocessing: Preprocessing,
    seed: int,
    augmentation: Augmentation,
    unreadable: Unreadable,
    labels: np.ndarray | None,
) -> Callable[[tf.Tensor, tf.Tensor], tuple[tf.Tensor, ...]]:
    """Returns a function that augments: from epoch and draw, int64 scalars, to (image, label, its seed, readable).

    Arguments are those of `training_batches`, and so is the image, before mixing; `labels` are those of
    `TrainingOrder`. `readable` is False if the image replaces an unreadable one.
    """
    of_class = None if labels is None else [tf.constant(table) for table in next_of_class(labels)]
    distort = Distortion(augmentation, examples.channels)
    normalize = normalizer(preprocessing)

    def example(epoch: tf.Tensor, draw: tf.Tensor):
        drawn = example_seed(seed, epoch, draw)
        image, label, readable = _readable(
            examples, draw % len(examples), preprocessing, augmentation, drawn, unreadable, of_class
        )
        return normalize(distort(image, drawn)), label, drawn, readable

    return example


def centre_crop(
    examples: Examples, preprocessing: Preprocessing, unreadable: Unreadable
) -> Callable[[tf.Tensor], tuple[tf.Tensor, ...]]:
    """Returns a function from an index or -1, int64, to (image, label, index, valid), as in `evaluation_batches`.

    Arguments are those of `evaluation_batches`.
    """
    size, channels = preprocessing.image_size, preprocessing.channels
    normalize = normalizer(preprocessing)

    def nothing():
        return tf.zeros((size, size, channels)), tf.zeros((), tf.int64), tf.constant(False)

    def cropped(image: tf.Tensor, index: tf.Tensor):
        resized, made = _resized(image, index, examples, preprocessing, unreadable)

        def crop():
            height, width = tf.unstack(tf.shape(resized)[:2])
            top, left, bottom, right = preprocessing.crop_box(height, width)
            return tf.ensure_shape(resized[top:bottom, left:right], (size, size, channels))

        return tf.cond(made, crop, lambda: tf.zeros((size, size, channels))), made

    def example(index: tf.Tensor):
        def read():
            crop, label, readable = decode_region(
                index, examples, unreadable, finish=cropped, least_side=preprocessing.least_side
            )
            return tf.cond(
                readable, lambda: (normalize(tf.ensure_shape(crop, (size, size, channels))), label, readable), nothing
            )

        image, label, valid = tf.cond(index >= 0, read, nothing)
        return image, label, index, valid

    return example


def _readable(
    examples: Examples,
    index: tf.Tensor,
    preprocessing: Preprocessing,
    augmentation: Augmentation,
    seed: tf.Tensor,
    unreadable: Unreadable,
    of_class: Sequence[tf.Tensor] | None,
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Returns the crop of an example, or of the next readable one.

    The results are the crop, float32 (size, size, channels), its label, and whether the first example was readable.
    With `of_class`, the result of `next_of_class`, the next one of the same class is taken as long as there are others.
    """
    size, channels = preprocessing.image_size, examples.channels

    def box(height: tf.Tensor, width: tf.Tensor, seed: tf.Tensor):
        return random_resized_box(height, width, seed, augmentation.crop_min_area)

    def resized_crop(image: tf.Tensor, index: tf.Tensor, seed: tf.Tensor):
        return resize_crop(image, size, preprocessing), tf.constant(True)

    def crop_of_resized(image: tf.Tensor, index: tf.Tensor, seed: tf.Tensor):
        resized, made = _resized(image, index, examples, preprocessing, unreadable)
        return tf.cond(made, lambda: random_crop(resized, size, seed), blank), made

    def attempt(index: tf.Tensor):
        scaled = preprocessing.decoding == "scaled"
        if augmentation.crop == "random_resized":
            crop, label, readable = decode_region(
                index, examples, unreadable, box, resized_crop, (seed,), size if scaled else None
            )
        else:
            crop, label, readable = decode_region(
                index, examples, unreadable, None, crop_of_resized, (seed,), preprocessing.least_side
            )
        cropped = tf.cond(readable, lambda: crop, blank)
        return tf.ensure_shape(cropped, (size, size, channels)), label, readable

    def blank() -> tf.Tensor:
        return tf.zeros((size, size, channels))

    image, label, readable = attempt(index)
    first_readable = readable
    if unreadable.on_error == "error":
        return image, label, first_readable

    def next_one(attempts, last, _image, _label, _readable):
        following = (index + attempts) % len(examples)
        if of_class is not None:
            after, sizes = of_class
            following = tf.where(attempts < sizes[index], after[last], following)
        return attempts + 1, following, *attempt(following)

    _, _, image, label, readable = tf.while_loop(
        lambda attempts, _last, _image, _label, readable: ~readable & (attempts < ATTEMPTS),
        next_one,
        (tf.constant(1, tf.int64), index, image, label, readable),
    )
    found = tf.debugging.Assert(readable, [f"{ATTEMPTS} images in a row cannot be read"])
    with tf.control_dependencies([found]):
        return tf.identity(image), label, first_readable


def _resized(
    image: tf.Tensor, index: tf.Tensor, examples: Examples, preprocessing: Preprocessing, unreadable: Unreadable
) -> tuple[tf.Tensor, tf.Tensor]:
    """Resizes the image by the protocol, float32 of 0 to 255; also returns whether the result is not empty."""
    height, width = tf.unstack(tf.shape(image, tf.int64)[:2])
    high, wide, fits = preprocessing.resized_sides(height, width)
    if fits is True:
        return resize(image, (high, wide), preprocessing), tf.constant(True)

    def refuse(height: np.int64, width: np.int64, index: np.int64) -> np.ndarray:
        try:
            preprocessing.resized_shape(int(height), int(width))
        except ValueError as error:
            unreadable.keep(int(index), ValueError(f"{examples.shown_name(int(index))}: {error}"))
        return np.zeros((0, 0, examples.channels), "float32")

    def refused() -> tf.Tensor:
        nothing = tf.numpy_function(refuse, [height, width, index], tf.float32, stateful=False)
        (nothing,) = unreadable.refused(nothing)
        return tf.ensure_shape(nothing, (None, None, examples.channels))

    size = tf.cast(tf.stack([high, wide]), tf.int32)
    return tf.cond(fits, lambda: resize(image, size, preprocessing), refused), fits
