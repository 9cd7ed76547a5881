"""Each operation beside Pillow's, on images of 8 bits, and the strengths beside torchvision's and timm's."""

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageEnhance, ImageOps
from PIL.ImageFilter import MaxFilter, MinFilter

from polynet_keras.data import operations

FILL = (124, 116, 104)


def photograph(seed, height=40, width=56):
    """Smooth and noisy parts, flat ones, and not all of 0 to 255."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    image = np.stack([x * 3 + 10, y * 5, x + y + 30], axis=-1) + rng.normal(0, 8, (height, width, 3))
    image[5:15, 5:20] = rng.integers(0, 256, 3)
    return np.clip(image, 6, 243).astype("uint8")


def transformed(matrix):
    def apply(image):
        return image.transform(image.size, Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR, fillcolor=FILL)

    return apply


def brighter(image, more):
    return Image.eval(image, lambda value: min(255, value + more) if value < 128 else value)


CASES = {
    "brightness": (operations.brightness, 1.6, lambda i: ImageEnhance.Brightness(i).enhance(1.6)),
    "darkness": (operations.brightness, 0.2, lambda i: ImageEnhance.Brightness(i).enhance(0.2)),
    "color": (operations.color, 1.7, lambda i: ImageEnhance.Color(i).enhance(1.7)),
    "no color": (operations.color, 0.01, lambda i: ImageEnhance.Color(i).enhance(0.01)),
    "contrast": (operations.contrast, 1.9, lambda i: ImageEnhance.Contrast(i).enhance(1.9)),
    "less contrast": (operations.contrast, 0.3, lambda i: ImageEnhance.Contrast(i).enhance(0.3)),
    "sharpness": (operations.sharpness, 1.9, lambda i: ImageEnhance.Sharpness(i).enhance(1.9)),
    "blur": (operations.sharpness, 0.1, lambda i: ImageEnhance.Sharpness(i).enhance(0.1)),
    **{f"{bits} bits": (operations.posterize, bits, lambda i, b=bits: ImageOps.posterize(i, b)) for bits in (1, 4, 8)},
    "solarize": (operations.solarize, 100, lambda i: ImageOps.solarize(i, 100)),
    "solarize all": (operations.solarize, 0, lambda i: ImageOps.solarize(i, 0)),
    "solarize none": (operations.solarize, 256, lambda i: ImageOps.solarize(i, 256)),
    "solarize add": (operations.solarize_add, 90, lambda i: brighter(i, 90)),
    "invert": (operations.invert, 0, ImageOps.invert),
    "auto contrast": (operations.auto_contrast, 0, ImageOps.autocontrast),
    "equalize": (operations.equalize, 0, ImageOps.equalize),
    "shear x": (operations.shear_x(FILL), 0.3, transformed((1, 0.3, 0, 0, 1, 0))),
    "shear y": (operations.shear_y(FILL), -0.9, transformed((1, 0, 0, -0.9, 1, 0))),
    "translate x": (operations.translate_x(FILL), -7, transformed((1, 0, -7, 0, 1, 0))),
    "translate y": (operations.translate_y(FILL), 9, transformed((1, 0, 0, 0, 1, 9))),
    "rotate": (operations.rotate(FILL), 25, lambda i: i.rotate(25, Image.Resampling.BILINEAR, fillcolor=FILL)),
    "rotate far": (operations.rotate(FILL), -130, lambda i: i.rotate(-130, Image.Resampling.BILINEAR, fillcolor=FILL)),
}
MOVED = ("shear x", "shear y", "translate x", "translate y", "rotate", "rotate far")
"""At the edge of what is uncovered, Pillow takes a pixel or the fill, and TensorFlow a mixture."""


@pytest.mark.parametrize("name", CASES)
def test_it_is_pillows(name):
    operation, strength, pillow = CASES[name]
    changed = 0.0
    for seed in range(3):
        image = photograph(seed)
        expected = np.float32(pillow(Image.fromarray(image)))
        found = operation(tf.constant(image, tf.float32), tf.constant(float(strength))).numpy()
        assert found.shape == image.shape
        assert found.dtype == np.float32
        # Pillow cuts fractions off where it blends, and what it blends with.
        apart = (np.abs(found - expected) > 2.01).any(axis=-1)
        if name in MOVED:
            white = np.zeros_like(image)
            white[1:-1, 1:-1] = 255
            covered = np.array(pillow(Image.fromarray(white))).min(axis=-1)
            inner, outer = (np.array(Image.fromarray(covered).filter(kind(3))) for kind in (MinFilter, MaxFilter))
            assert (inner == 255).mean() > 0.2
            apart &= inner == outer
        assert not apart.any()
        changed += np.abs(expected - image).mean()
    assert changed > 0.3 or name in ("8 bits", "solarize none")


@pytest.mark.parametrize("value", [0.0, 7.0, 255.0])
def test_an_even_image_has_nothing_to_stretch(value):
    image = tf.fill((9, 8, 3), value)
    for operation in (operations.auto_contrast, operations.equalize):
        np.testing.assert_array_equal(operation(image, tf.constant(0.0)), image)


@pytest.mark.parametrize("name", CASES)
def test_values_between_whole_numbers_stay_in_range(name):
    operation, strength, _ = CASES[name]
    image = np.random.default_rng(0).uniform(0, 255, (12, 16, 3)).astype("float32")
    image[0, 0], image[0, 1] = 0, 255
    found = operation(tf.constant(image), tf.constant(float(strength))).numpy()
    assert np.isfinite(found).all()
    assert found.min() >= -1e-3
    assert found.max() <= 255 + 1e-3
