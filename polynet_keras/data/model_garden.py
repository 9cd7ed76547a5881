"""AutoAugment and RandAugment of tf-models-official, each draw a function of the example's seed.

AutoAugment is arXiv:1805.09501, RandAugment arXiv:1909.13719. tf-models-official draws from TensorFlow's generator,
which counts on. Here a copy of its module of our own gets another `tf.random`; its source and what others import of it
stay as they are.
"""

import importlib.util
from collections.abc import Callable
from typing import Any

import tensorflow as tf


class SeededDraws:
    """What tf-models-official's module takes for `tf.random`: draws that follow from one seed.

    Only what the two policies use is here: a release that drew otherwise would fail, not draw from elsewhere.
    """

    def start(self, seed: tf.Tensor) -> None:
        """From here on, draws are those of a seed. Called while a graph is traced, which one thread does."""
        self._seed, self._drawn = seed, 0

    def uniform(self, shape, minval=0, maxval=None, dtype=tf.float32) -> tf.Tensor:
        """As `tf.random.uniform`."""
        # In the order of tracing, which is that of the source: branches of which one runs have draws of their own.
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
    """A new copy of `official.vision.ops.augment`.

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
    """A policy with the settings that tf-models-official trains image classifiers with.

    Args:
        policy: `"model_garden_auto_augment"`, its policy v0 for ImageNet; or `"model_garden_rand_augment"`, two of 16
            operations, or none in place of each, at magnitude 10.

    Returns:
        From an image, float32 tensor (height, width, 3) of values 0 to 255, and a seed, int64 tensor (2,), to the
        distorted image of the same shape. Its values are whole: the operations are those of 8-bit images, to which
        fractions are cut off. For use in a graph.

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
