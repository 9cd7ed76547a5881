"""AutoAugment and RandAugment of tf-models-official, where each draw is a function of the example's seed.

AutoAugment is arXiv:1805.09501, RandAugment arXiv:1909.13719. tf-models-official draws from TensorFlow's generator,
which advances with each draw. Here a private copy of its module gets another `tf.random`; its source and other imports
of it are unaffected.
"""

import importlib.util
from collections.abc import Callable
from typing import Any

import tensorflow as tf


class SeededDraws:
    """A replacement of `tf.random` for tf-models-official's module: its draws follow from one seed.

    It has only the functions that the two policies use: a release that drew otherwise would fail instead of drawing
    from elsewhere.
    """

    def start(self, seed: tf.Tensor) -> None:
        """Sets the seed of the following draws. Called while a graph is traced, in one thread."""
        self._seed, self._drawn = seed, 0

    def uniform(self, shape, minval=0, maxval=None, dtype=tf.float32) -> tf.Tensor:
        """Draws as `tf.random.uniform`."""
        # In the order of tracing, which is that of the source: each of several branches has its own draws.
        self._drawn += 1
        seed = tf.random.experimental.stateless_fold_in(self._seed, self._drawn)
        return tf.random.stateless_uniform(shape, seed, minval, maxval, dtype)


class TensorFlow:
    """TensorFlow with another `tf.random`."""

    def __init__(self, random: SeededDraws):
        self.random = random

    def __getattr__(self, name: str):
        return getattr(tf, name)


def augment_module() -> Any:
    """Returns a new copy of `official.vision.ops.augment`.

    Raises:
        ValueError: tf-models-official is not installed.
    """
    if importlib.util.find_spec("official") is None:
        raise ValueError(
            "not installed: tf-models-official, whose policies these are: pip install 'polynet_keras[model-garden]'"
        )
    spec = importlib.util.find_spec("official.vision.ops.augment")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def distortion(policy: str) -> Callable[[tf.Tensor, tf.Tensor], tf.Tensor]:
    """Returns a policy with tf-models-official's settings for image classifiers.

    Args:
        policy: `"model_garden_auto_augment"`, its policy v0 for ImageNet; or `"model_garden_rand_augment"`, two of 16
            operations, each of which may be omitted, at magnitude 10.

    Returns:
        A function for use in a graph, from an image, float32 tensor (height, width, 3) of values 0 to 255, and a seed,
        int64 tensor (2,), to the distorted image of the same shape. Its values are whole: the operations are those of
        8-bit images, and truncate fractions.

    Raises:
        ValueError: tf-models-official is not installed.
    """
    module = augment_module()
    draws = SeededDraws()
    module.tf = TensorFlow(draws)
    if policy == "model_garden_auto_augment":
        augmenter = module.AutoAugment(**module.configs.AutoAugment().as_dict())
    else:
        augmenter = module.RandAugment(**module.configs.RandAugment().as_dict())

    def distort(image: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        draws.start(seed)
        return tf.ensure_shape(augmenter.distort(image), image.shape)

    return distort
