"""The augmentation of training images, where each draw is a function of the example's seed.

Keras's layers draw from a generator that advances with each draw. Here each layer gets a generator that is set to an
example's seed, so that the distortion of an example does not depend on threads, workers and restarts.
"""

import keras
import tensorflow as tf

from polynet_keras.basics.keras_internals import draw_from, mix_in_order
from polynet_keras.data.augmentation import Augmentation
from polynet_keras.data.policies import policy_of

MIN_AREA = 0.08
ASPECT_RATIO = (3 / 4, 4 / 3)
"""Aspect ratios of a random-resized crop: GoogLeNet's (arXiv:1409.4842, section 6)."""
ATTEMPTS = 100
"""Random boxes to try before the whole image is used."""
ERASING_AREA = (0.02, 0.33)
"""Share of the area in random erasing (arXiv:1708.04896)."""


def example_seed(seed: int, epoch: tf.Tensor, index: tf.Tensor) -> tf.Tensor:
    """Returns the seed of all draws for an example in an epoch: int64 tensor (2,)."""
    fold = tf.random.experimental.stateless_fold_in
    return fold(fold(tf.constant([seed, 0], tf.int64), epoch), index)


def random_crop(image: tf.Tensor, size: int, seed: tf.Tensor) -> tf.Tensor:
    """Cuts a square from anywhere in the image; all positions are equally likely.

    Args:
        image: tensor (height, width, channels), sides at least `size`.
        size: side of the crop, in pixels.
        seed: int tensor (2,): the same seed cuts at the same place.

    Returns:
        Tensor (size, size, channels).
    """
    return tf.image.stateless_random_crop(image, (size, size, image.shape[-1]), seed)


def random_resized_box(height: tf.Tensor, width: tf.Tensor, seed: tf.Tensor, min_area: float | None = None):
    """Draws the region of a random-resized crop by TensorFlow's sampler: (top, left, height, width), int32."""
    begin, size, _ = tf.image.stateless_sample_distorted_bounding_box(
        tf.stack([height, width, 1]),
        bounding_boxes=tf.zeros((1, 0, 4)),
        seed=seed,
        min_object_covered=0.0,
        aspect_ratio_range=ASPECT_RATIO,
        area_range=(MIN_AREA if min_area is None else min_area, 1.0),
        max_attempts=ATTEMPTS,
        use_image_if_no_bounding_boxes=True,
    )
    return begin[0], begin[1], size[0], size[1]


class ExampleSeeds(keras.random.SeedGenerator):
    """A source of seeds for Keras's layers: functions of one example's seed."""

    def start(self, seed: tf.Tensor) -> None:
        """Sets the seed of the example for the following draws. Called while a graph is traced."""
        self._seed, self._drawn = seed, 0

    def next(self, ordered: bool = True) -> tf.Tensor:
        self._drawn += 1
        return tf.random.experimental.stateless_fold_in(self._seed, self._drawn)


def take_seeds_from(layer: keras.Layer, seeds: ExampleSeeds) -> None:
    """Makes a random layer of Keras, and its inner layers, draw from `seeds`."""
    draw_from(layer, seeds, [value for value in vars(layer).values() if isinstance(value, keras.Layer)])


class Distortion:
    """Flip, colour, policy and erasing of one cropped image.

    Args:
        augmentation: selects the distortions.
        channels: channels of the images.
    """

    def __init__(self, augmentation: Augmentation, channels: int):
        augmentation.check_channels(channels)
        self._flip = augmentation.flip
        self._seeds = ExampleSeeds(0)
        self._policy = policy_of(augmentation)
        jitter, erasing = augmentation.color_jitter, augmentation.erasing
        layers = []
        if jitter:
            # Keras multiplies the saturation by f / (1 - f): one number would mean from nothing to a quarter, at 0.2.
            saturation = tuple(share / (1 + share) for share in (1 - jitter, 1 + jitter))
            layers.append(
                keras.layers.RandomColorJitter(
                    brightness_factor=jitter,
                    contrast_factor=jitter,
                    saturation_factor=saturation,
                    data_format="channels_last",
                )
            )
        if augmentation.policy == "rand_augment":
            layers.append(keras.layers.RandAugment(data_format="channels_last"))
        self._before, self._after = layers, []
        if erasing:
            eraser = keras.layers.RandomErasing((erasing, erasing), ERASING_AREA, data_format="channels_last")
            self._after.append(eraser)
        for layer in (*self._before, *self._after):
            take_seeds_from(layer, self._seeds)

    def __call__(self, image: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        """Distorts a float32 tensor (size, size, channels) of values 0 to 255, and returns such a tensor."""
        fold = tf.random.experimental.stateless_fold_in
        if self._flip:
            image = tf.image.stateless_random_flip_left_right(image, fold(seed, 1))
        image = self._apply(self._before, image, fold(seed, 2))
        if self._policy is not None:
            image = self._policy(image, fold(seed, 3))
        return self._apply(self._after, image, fold(seed, 4))

    def _apply(self, layers: list[keras.Layer], image: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        self._seeds.start(seed)
        for layer in layers:
            distorted = layer(image[tf.newaxis], training=True)[0]
            # Keras's layer for saturation leaves what goes beyond the range.
            image = tf.ensure_shape(tf.clip_by_value(distorted, 0.0, 255.0), image.shape)
        return image


class Mixing:
    """MixUp and CutMix of pairs of consecutive images.

    Args:
        augmentation: selects the methods and their strength.
        classes: number of classes.
    """

    def __init__(self, augmentation: Augmentation, classes: int):
        self._classes = classes
        self._seeds = ExampleSeeds(0)
        self._layers: list[keras.Layer] = []
        if augmentation.mixup:
            self._layers.append(keras.layers.MixUp(augmentation.mixup, data_format="channels_last"))
        if augmentation.cutmix:
            alpha = augmentation.cutmix
            self._layers.append(keras.layers.CutMix((alpha, alpha), data_format="channels_last"))
        for layer in self._layers:
            take_seeds_from(layer, self._seeds)

    def __call__(self, images: tf.Tensor, labels: tf.Tensor, seed: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Mixes a pair.

        Args:
            images: float32 (2, size, size, channels), or one image, which stays unchanged.
            labels: int64 (2,) or (1,).
            seed: seed of the pair, int64 (2,).

        Returns:
            The images, and float32 shares of the classes (2, classes).
        """
        shares = tf.one_hot(labels, self._classes)
        partners = tf.reverse(tf.range(tf.shape(labels)[0]), [0])

        def mixed(layer: keras.Layer):
            self._seeds.start(tf.random.experimental.stateless_fold_in(seed, 1))
            layer.backend.set_backend("tensorflow")
            drawn = layer.get_random_transformation(images, training=True)
            # Keras draws the pairs to mix among the whole batch, which would depend on the number of workers.
            mix_in_order(drawn, partners)
            result = layer.transform_images(images, drawn), layer.transform_labels(shares, drawn)
            layer.backend.reset()
            return tf.ensure_shape(result[0], images.shape), tf.ensure_shape(result[1], shares.shape)

        if len(self._layers) == 1:
            return mixed(self._layers[0])
        first = tf.random.stateless_uniform((), tf.random.experimental.stateless_fold_in(seed, 2)) < 0.5
        return tf.cond(first, lambda: mixed(self._layers[0]), lambda: mixed(self._layers[1]))
