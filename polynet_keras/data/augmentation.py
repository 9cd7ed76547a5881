"""Augmentation of training images, each draw a function of the example's seed.

Keras's layers draw from a generator that counts on; here each of them gets one that is set to an example's seed, so
that an example is distorted the same way whatever the threads, the workers and the restarts.
"""

from dataclasses import dataclass

import keras
import tensorflow as tf

from polynet_keras.basics.checks import check_choice, check_flag, check_number
from polynet_keras.basics.keras_internals import draw_from, mix_in_order

RANDOM_CROPS = ("random", "random_resized")
POLICIES = ("rand_augment", "model_garden_auto_augment", "model_garden_rand_augment")
AREA = (0.08, 1.0)
ASPECT_RATIO = (3 / 4, 4 / 3)
"""Of a random-resized crop: GoogLeNet's (arXiv:1409.4842, section 6)."""
ATTEMPTS = 100
"""Random boxes that are tried before the whole image is taken."""
ERASING_AREA = (0.02, 0.33)
"""Random erasing's (arXiv:1708.04896)."""


@dataclass(frozen=True)
class Augmentation:
    """What is done to a training image before it is normalized, in this order.

    Attributes:
        crop: `"random"`, the poster's: a square from anywhere in the image that was resized as the protocol says; or
            `"random_resized"`, GoogLeNet's: a part of 8 to 100 % of the area and of an aspect ratio of 3:4 to 4:3,
            resized to the network's input, with a filter only if it shrinks to less than half; of a JPEG that part
            alone is decoded.
        flip: whether half of the images are mirrored.
        color_jitter: how far brightness, contrast and saturation vary, as a share: 0.4 is common. RGB only.
        policy: `"rand_augment"`, Keras's; or of tf-models-official (extra `model-garden`) `"model_garden_auto_augment"`
            (its policy for ImageNet) or `"model_garden_rand_augment"`. RGB only.
        erasing: the probability that a rectangle is replaced by noise.
        mixup: alpha of the Beta distribution that weighs the two images of a pair, 0 for none (arXiv:1710.09412).
        cutmix: the same for the area of one that is pasted into the other (arXiv:1905.04899). With both, half of the
            pairs get one, half the other.

    Raises:
        ValueError: a value out of range.
    """

    crop: str = "random"
    flip: bool = False
    color_jitter: float = 0.0
    policy: str | None = None
    erasing: float = 0.0
    mixup: float = 0.0
    cutmix: float = 0.0

    def __post_init__(self):
        check_choice("crop", self.crop, RANDOM_CROPS)
        if self.policy is not None and self.policy not in POLICIES:
            raise ValueError(f"policy={self.policy!r} must be None or one of {POLICIES}")
        check_flag("flip", self.flip)
        for name, highest in (("color_jitter", 1), ("erasing", 1), ("mixup", None), ("cutmix", 1)):
            check_number(name, getattr(self, name), at_least=0, at_most=highest)

    @property
    def mixes(self) -> bool:
        """Whether labels become shares of classes."""
        return self.mixup > 0 or self.cutmix > 0

    def check_channels(self, channels: int) -> None:
        if channels != 3 and (self.color_jitter or self.policy):
            raise ValueError(f"color_jitter and policy are for RGB images; these have {channels} channel(s)")


def example_seed(seed: int, epoch: tf.Tensor, index: tf.Tensor) -> tf.Tensor:
    """The seed of all that is drawn for an example in an epoch: int64 tensor (2,)."""
    fold = tf.random.experimental.stateless_fold_in
    return fold(fold(tf.constant([seed, 0], tf.int64), epoch), index)


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


def random_resized_box(height: tf.Tensor, width: tf.Tensor, seed: tf.Tensor):
    """The region of a random-resized crop, by TensorFlow's sampler: (top, left, height, width), int32 scalars."""
    begin, size, _ = tf.image.stateless_sample_distorted_bounding_box(
        tf.stack([height, width, 1]),
        bounding_boxes=tf.zeros((1, 0, 4)),
        seed=seed,
        min_object_covered=0.0,
        aspect_ratio_range=ASPECT_RATIO,
        area_range=AREA,
        max_attempts=ATTEMPTS,
        use_image_if_no_bounding_boxes=True,
    )
    return begin[0], begin[1], size[0], size[1]


class ExampleSeeds(keras.random.SeedGenerator):
    """What Keras's layers draw seeds from, here: functions of one example's seed."""

    def start(self, seed: tf.Tensor) -> None:
        """From here on, seeds are those of an example. Called while a graph is traced."""
        self._seed, self._drawn = seed, 0

    def next(self, ordered: bool = True) -> tf.Tensor:
        self._drawn += 1
        return tf.random.experimental.stateless_fold_in(self._seed, self._drawn)


def take_seeds_from(layer: keras.Layer, seeds: ExampleSeeds) -> None:
    """Lets a random layer of Keras, and the layers that it is made of, draw from `seeds`."""
    draw_from(layer, seeds, [value for value in vars(layer).values() if isinstance(value, keras.Layer)])


class Distortion:
    """Flip, colour, policy and erasing of one cropped image.

    Args:
        augmentation: which of them.
        channels: of the images.
    """

    def __init__(self, augmentation: Augmentation, channels: int):
        augmentation.check_channels(channels)
        self._flip = augmentation.flip
        self._seeds = ExampleSeeds(0)
        self._model_garden = None
        jitter, erasing = augmentation.color_jitter, augmentation.erasing
        layers = []
        if jitter:
            factors = {f"{name}_factor": jitter for name in ("brightness", "contrast", "saturation")}
            layers.append(keras.layers.RandomColorJitter(**factors, data_format="channels_last"))
        if augmentation.policy == "rand_augment":
            layers.append(keras.layers.RandAugment(data_format="channels_last"))
        elif augmentation.policy:
            from polynet_keras.data.model_garden import distortion

            self._model_garden = distortion(augmentation.policy)
        self._before, self._after = layers, []
        if erasing:
            eraser = keras.layers.RandomErasing((erasing, erasing), ERASING_AREA, data_format="channels_last")
            self._after.append(eraser)
        for layer in (*self._before, *self._after):
            take_seeds_from(layer, self._seeds)

    def __call__(self, image: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        """Distorts a float32 tensor (size, size, channels) of values 0 to 255; the result is one."""
        fold = tf.random.experimental.stateless_fold_in
        if self._flip:
            image = tf.image.stateless_random_flip_left_right(image, fold(seed, 1))
        image = self._apply(self._before, image, fold(seed, 2))
        if self._model_garden is not None:
            image = self._model_garden(image, fold(seed, 3))
        return self._apply(self._after, image, fold(seed, 4))

    def _apply(self, layers: list[keras.Layer], image: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        self._seeds.start(seed)
        for layer in layers:
            image = tf.ensure_shape(layer(image[tf.newaxis], training=True)[0], image.shape)
        return image


class Mixing:
    """MixUp and CutMix of pairs of images that follow each other.

    Args:
        augmentation: how much of which.
        classes: how many there are.
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
            images: float32 (2, size, size, channels), or one image, which stays as it is.
            labels: int64 (2,) or (1,).
            seed: int64 (2,), of the pair.

        Returns:
            The images, and float32 shares of the classes (2, classes).
        """
        shares = tf.one_hot(labels, self._classes)
        partners = tf.reverse(tf.range(tf.shape(labels)[0]), [0])

        def mixed(layer: keras.Layer):
            self._seeds.start(tf.random.experimental.stateless_fold_in(seed, 1))
            layer.backend.set_backend("tensorflow")
            drawn = layer.get_random_transformation(images, training=True)
            # Keras draws who is mixed with whom among all of a batch, which would depend on the number of workers.
            mix_in_order(drawn, partners)
            result = layer.transform_images(images, drawn), layer.transform_labels(shares, drawn)
            layer.backend.reset()
            return tf.ensure_shape(result[0], images.shape), tf.ensure_shape(result[1], shares.shape)

        if len(self._layers) == 1:
            return mixed(self._layers[0])
        first = tf.random.stateless_uniform((), tf.random.experimental.stateless_fold_in(seed, 2)) < 0.5
        return tf.cond(first, lambda: mixed(self._layers[0]), lambda: mixed(self._layers[1]))
