"""Policies of distortions, where each draw is a function of the example's seed: TrivialAugment, timm's RandAugment."""

from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf

from polynet_keras.data import operations
from polynet_keras.data.augmentation import Augmentation
from polynet_keras.data.operations import Operation

BLACK = (0.0, 0.0, 0.0)
MEAN = (124.0, 116.0, 104.0)
"""ImageNet's mean, rounded."""
BINS = 31
"""Number of strengths of a TrivialAugment operation."""
TURNS = 2
"""Number of consecutive RandAugment operations."""
NOISE = 9
"""Index of the draw of an operation's noise; other draws have lower numbers."""
LEVELS = 10.0
"""The highest magnitude of timm's RandAugment."""

Distort = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]


def _rising(highest: float) -> np.ndarray:
    return np.linspace(0, highest, BINS)


TRIVIAL: dict[str, tuple[Operation, np.ndarray, bool]] = {
    "Identity": (operations.identity, np.zeros(BINS), False),
    "ShearX": (operations.shear_x(BLACK), _rising(0.99), True),
    "ShearY": (operations.shear_y(BLACK), _rising(0.99), True),
    "TranslateX": (operations.translate_x(BLACK), np.floor(_rising(32)), True),
    "TranslateY": (operations.translate_y(BLACK), np.floor(_rising(32)), True),
    "Rotate": (operations.rotate(BLACK), _rising(135), True),
    "Brightness": (lambda image, more: operations.brightness(image, 1 + more), _rising(0.99), True),
    "Color": (lambda image, more: operations.color(image, 1 + more), _rising(0.99), True),
    "Contrast": (lambda image, more: operations.contrast(image, 1 + more), _rising(0.99), True),
    "Sharpness": (lambda image, more: operations.sharpness(image, 1 + more), _rising(0.99), True),
    "Posterize": (operations.posterize, 8 - np.round(np.arange(BINS) / 5), False),
    "Solarize": (operations.solarize, 255 - _rising(255), False),
    "AutoContrast": (operations.auto_contrast, np.zeros(BINS), False),
    "Equalize": (operations.equalize, np.zeros(BINS), False),
}
"""TrivialAugment's wide space: by name the operation, its strengths, and whether half of them are negative."""


def trivial_augment_wide(image: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Applies one operation of `TRIVIAL` at one of its strengths, all equally likely.

    Args:
        image: float32 (height, width, 3) of values 0 to 255.
        seed: int64 (2,).

    Returns:
        The distorted image, of the same shape.

    Source: Müller and Hutter, "TrivialAugment", arXiv:2103.10158; uncovered areas are black, as in torchvision.
    """
    number, place, sign = _whole_numbers(seed, (len(TRIVIAL), BINS, 2))
    strengths = tf.constant(np.stack([table for _, table, _ in TRIVIAL.values()]), tf.float32)
    signed = tf.constant([signed for _, _, signed in TRIVIAL.values()])
    strength = tf.gather_nd(strengths, [[number, place]])[0]
    strength = tf.where((sign == 1) & signed[number], -strength, strength)
    return _applied([operation for operation, _, _ in TRIVIAL.values()], number, image, strength)


def _of_side(operation: Operation, axis: int) -> Operation:
    """Returns an operation whose strength is a share of the image's height (0) or width (1)."""
    return lambda image, share: operation(image, share * tf.cast(tf.shape(image)[axis], tf.float32))


def _factor(level: tf.Tensor, sign: tf.Tensor) -> tf.Tensor:
    return tf.maximum(0.1, 1 + sign * 0.9 * level)


INCREASING: dict[str, tuple[Operation, Callable[[tf.Tensor, tf.Tensor], tf.Tensor]]] = {
    "AutoContrast": (operations.auto_contrast, lambda level, sign: level),
    "Equalize": (operations.equalize, lambda level, sign: level),
    "Invert": (operations.invert, lambda level, sign: level),
    "Rotate": (operations.rotate(MEAN), lambda level, sign: sign * 30 * level),
    "PosterizeIncreasing": (operations.posterize, lambda level, sign: 4 - tf.floor(4 * level)),
    "SolarizeIncreasing": (operations.solarize, lambda level, sign: 256 - tf.floor(256 * level)),
    "SolarizeAdd": (operations.solarize_add, lambda level, sign: tf.floor(110 * level)),
    "ColorIncreasing": (operations.color, _factor),
    "ContrastIncreasing": (operations.contrast, _factor),
    "BrightnessIncreasing": (operations.brightness, _factor),
    "SharpnessIncreasing": (operations.sharpness, _factor),
    "ShearX": (operations.shear_x(MEAN), lambda level, sign: sign * 0.3 * level),
    "ShearY": (operations.shear_y(MEAN), lambda level, sign: sign * 0.3 * level),
    "TranslateXRel": (_of_side(operations.translate_x(MEAN), 1), lambda level, sign: sign * 0.45 * level),
    "TranslateYRel": (_of_side(operations.translate_y(MEAN), 0), lambda level, sign: sign * 0.45 * level),
}
"""Operations of timm's `rand-...-inc1`: by name the operation, and a function from a level, 0 to 1, and a sign to its
strength."""


def rand_augment_increasing(magnitude: float, magnitude_std: float) -> Distort:
    """Returns a policy of two operations of `INCREASING`, all equally likely, each omitted half of the time.

    Args:
        magnitude: magnitude of all operations, from 0 to 10.
        magnitude_std: standard deviation of the normal distribution around it from which each operation draws its own.

    Returns:
        A function like `trivial_augment_wide`.

    Source: Cubuk et al., "RandAugment", arXiv:1909.13719; operations, strengths and noise are those of
    timm's `rand-m9-mstd0.5-inc1`.
    """

    def distort(image: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        for turn in range(TURNS):
            image = once(image, tf.random.experimental.stateless_fold_in(seed, turn))
        return image

    def once(image: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        number, sign, left_out = _whole_numbers(seed, (len(INCREASING), 2, 2))
        noise = tf.random.stateless_normal((), tf.random.experimental.stateless_fold_in(seed, NOISE))
        level = tf.clip_by_value(magnitude + magnitude_std * noise, 0.0, LEVELS) / LEVELS
        direction = 1.0 - 2.0 * tf.cast(sign, tf.float32)
        made = [_with_strength(operation, strength, direction) for operation, strength in INCREASING.values()]
        return tf.cond(left_out == 1, lambda: image, lambda: _applied(made, number, image, level))

    return distort


def policy_of(augmentation: Augmentation) -> Distort | None:
    """Returns the policy that an augmentation names; `None` for a layer of Keras, and for no policy.

    It is a function of a float32 image (height, width, 3) of values 0 to 255 and a seed, int64 (2,)."""
    if augmentation.policy == "trivial_augment_wide":
        return trivial_augment_wide
    if augmentation.policy == "rand_augment_increasing":
        assert augmentation.magnitude is not None
        assert augmentation.magnitude_std is not None
        return rand_augment_increasing(augmentation.magnitude, augmentation.magnitude_std)
    if augmentation.policy in (None, "rand_augment"):
        return None
    from polynet_keras.data.model_garden import distortion

    return distortion(augmentation.policy)


def _with_strength(operation: Operation, strength: Callable, sign: tf.Tensor) -> Operation:
    return lambda image, level: operation(image, strength(level, sign))


def _applied(made: Sequence[Operation], number: tf.Tensor, image: tf.Tensor, strength: tf.Tensor) -> tf.Tensor:
    """Applies one of the operations to an image; the others are not computed."""

    def branch(operation: Operation) -> Callable[[], tf.Tensor]:
        return lambda: tf.ensure_shape(operation(image, strength), image.shape)

    return tf.switch_case(number, [branch(operation) for operation in made])


def _whole_numbers(seed: tf.Tensor, ends: Sequence[int]) -> list[tf.Tensor]:
    """Draws a number from 0 to below each of the ends, int32 scalars."""
    fold = tf.random.experimental.stateless_fold_in
    return [tf.random.stateless_uniform((), fold(seed, place), 0, end, tf.int32) for place, end in enumerate(ends, 1)]
