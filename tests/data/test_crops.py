from collections import Counter
from dataclasses import replace
from fractions import Fraction
from itertools import product
from math import floor

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from keras import ops
from PIL import Image
from sklearn.datasets import load_sample_image

from polynet_keras.data.crops import CROPS, Crop, crop_plan
from polynet_keras.data.image_headers import MAX_PIXELS
from polynet_keras.data.protocol import INTERPOLATIONS, Preprocessing
from tests.reference import views_of

RELEASED = Preprocessing(331, 378)


def of_any_size(test):
    sides, sizes = st.integers(1, 3000), st.integers(1, 400)
    return settings(deadline=None)(given(sides, sides, sizes)(test))


def of_the_paper(height, width, size):
    """Section 7 of arXiv:1409.4842 in exact fractions: a place is a share of the room that there is."""
    half = Fraction(1, 2)
    for paper in (256, 288, 320, 352):
        side = round(Fraction(paper * size, 224))
        zoom = Fraction(side, min(height, width))
        resized = floor(height * zoom), floor(width * zoom)
        for along in (0, half, 1):
            top, left = (round(along * (length - side)) for length in resized)
            for mirrored in (False, True):
                yield Crop(resized, (top, left, top + side, left + side), mirrored)
                for down, right in ((0, 0), (0, 1), (1, 0), (1, 1), (half, half)):
                    y, x = top + round(down * (side - size)), left + round(right * (side - size))
                    yield Crop(resized, (y, x, y + size, x + size), mirrored)


def crops_of(height, width, size):
    assume(max(height, width) * round(size * 352 / 224) ** 2 <= MAX_PIXELS * min(height, width))
    return crop_plan(height, width, Preprocessing(size, size), 144)


@of_any_size
def test_144_crops_are_those_of_the_paper(height, width, size):
    plan = crops_of(height, width, size)
    assert len(plan) == 144
    assert Counter(plan) == Counter(of_the_paper(height, width, size))


@of_any_size
def test_boxes_are_squares_inside_the_resized_image(height, width, size):
    for crop in crops_of(height, width, size):
        (top, left, bottom, right), (h, w) = crop.box, crop.resized
        assert 0 <= top < bottom <= h
        assert 0 <= left < right <= w
        assert bottom - top == right - left
        assert bottom - top in (size, min(h, w))


@of_any_size
def test_144_crops_of_a_turned_image_are_turned(height, width, size):
    def turned(crop):
        top, left, bottom, right = crop.box
        return replace(crop, resized=crop.resized[::-1], box=(left, top, right, bottom))

    assert Counter(map(turned, crops_of(height, width, size))) == Counter(crops_of(width, height, size))


def test_order_and_numbers_of_the_released_size():
    """Worked by hand for 640 × 427 px: 378 · 640 / 427 = 566.5; of the margins 188, 47 the halves are 94, 23.5."""
    plan = crop_plan(427, 640, RELEASED, 144)
    assert [crop.resized for crop in plan[::36]] == [(378, 566), (426, 638), (473, 708), (520, 779)]
    square = [(0, 0), (0, 47), (47, 0), (47, 47), (24, 24)]
    expected = []
    for left in (0, 94, 188):
        boxes = [(y, left + x, y + 331, left + x + 331) for y, x in square] + [(0, left, 378, left + 378)]
        for mirrored in (False, True):
            expected += [Crop((378, 566), box, mirrored) for box in boxes]
    assert list(plan[:36]) == expected
    # A portrait: top, centre and bottom square.
    assert [crop.box for crop in crop_plan(640, 427, RELEASED, 144)[5:36:12]] == [
        (0, 0, 378, 378),
        (94, 0, 472, 378),
        (188, 0, 566, 378),
    ]


def test_the_paper_has_its_own_sizes():
    plan = crop_plan(500, 500, Preprocessing(224, 256), 144)
    assert list(dict.fromkeys(crop.resized for crop in plan)) == [(side, side) for side in (256, 288, 320, 352)]
    assert set(Counter(plan).values()) == {3}  # left, centre and right square are the same


@pytest.mark.parametrize("resize", ["square", "shorter_side"])
def test_10_crops(resize):
    height, width = (378, 378) if resize == "square" else (378, 566)
    plan = crop_plan(427, 640, replace(RELEASED, resize=resize), 10)
    # Of the margins 47 and 235 the halves are 23.5 and 117.5, and the even numbers next to them 24 and 118.
    starts = [(0, 0), (0, width - 331), (47, 0), (47, width - 331), (24, 24 if resize == "square" else 118)]
    boxes = [(y, x, y + 331, x + 331) for y, x in starts]
    assert plan == tuple(Crop((height, width), box, mirrored) for mirrored in (False, True) for box in boxes)


def mirror(crop):
    top, left, bottom, right = crop.box
    width = crop.resized[1]
    return replace(crop, box=(top, width - right, bottom, width - left), mirrored=not crop.mirrored)


@pytest.mark.parametrize("crops", CROPS[1:])
def test_mirroring_maps_the_crops_to_themselves_where_margins_are_even(crops):
    for height, width in ((100, 200), (200, 100), (3, 3)):
        plan = crop_plan(height, width, Preprocessing(224, 256, resize="shorter_side"), crops)
        assert all((crop.resized[1] - 224) % 2 == 0 for crop in plan)
        assert Counter(map(mirror, plan)) == Counter(plan)


@of_any_size
def test_what_is_centred_is_half_a_pixel_off_the_middle_where_the_margin_is_odd(height, width, size):
    plan = crops_of(height, width, size)
    for start in range(0, 144, 12):
        *corners, centre, square = plan[start : start + 6]
        for axis in (0, 1):
            low, high = square.box[axis], square.box[axis + 2]
            assert [c.box[axis] - low for c in corners] == [high - c.box[axis + 2] for c in reversed(corners)]
            assert abs(centre.box[axis] - low - (high - centre.box[axis + 2])) == (high - low - size) % 2
    for first, middle, last in zip(plan[5::36], plan[17::36], plan[29::36], strict=True):  # the squares of each size
        for axis, length in enumerate(first.resized):
            assert first.box[axis] == 0 == length - last.box[axis + 2]
            assert abs(middle.box[axis] - (length - middle.box[axis + 2])) == (length - min(first.resized)) % 2


def photograph(turned=False):
    pixels = load_sample_image("china.jpg")[::2, ::2]
    return np.ascontiguousarray(np.rot90(pixels)) if turned else pixels


def pillow_resize(pixels, size, interpolation):
    method = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}[interpolation]
    channels = [Image.fromarray(pixels[..., c].astype("float32")).resize(size[::-1], method) for c in range(3)]
    return np.clip(np.stack([np.asarray(channel) for channel in channels], axis=-1), 0, 255)


@pytest.mark.parametrize(("crops", "turned"), [(10, False), (144, False), (144, True)])
@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
def test_views_equal_pillows(crops, turned, interpolation):
    pixels = photograph(turned)
    preprocessing = Preprocessing(96, 110, resize="shorter_side", interpolation=interpolation)
    found = views_of(pixels, preprocessing, crops)
    assert found.shape == (crops, 96, 96, 3)
    assert found.dtype == "float32"
    for view, crop in zip(found, crop_plan(*pixels.shape[:2], preprocessing, crops), strict=True):
        top, left, bottom, right = crop.box
        expected = pillow_resize(pixels, crop.resized, interpolation)[top:bottom, left:right]
        if expected.shape[:2] != (96, 96):
            expected = pillow_resize(expected, (96, 96), interpolation)
        # As in test_protocol.py: implementations of the filter differ by some thousandths of a grey level.
        np.testing.assert_allclose(view, expected[:, ::-1] if crop.mirrored else expected, atol=0.02)


def test_1_crop_is_that_of_the_protocol():
    # Shrunk; enlarged, where bicubic goes beyond 0 and 255; without any structure.
    for shape in ((40, 61, 3), (9, 7, 1), (1, 1, 4)):
        image = np.random.default_rng(0).integers(0, 256, shape).astype("uint8")
        middle = (0.5,) * shape[2]
        for resize, antialias, interpolation in (
            ("square", True, "bilinear"),
            ("square", False, "bilinear"),
            ("shorter_side", True, "bicubic"),
        ):
            preprocessing = Preprocessing(24, 27, middle, middle, resize, antialias, interpolation)
            np.testing.assert_array_equal(views_of(image, preprocessing, 1), preprocessing.crop(image)[None])


@pytest.mark.parametrize("crops", CROPS[1:])
def test_views_of_a_mirrored_image_are_its_mirrored_views(crops):
    pixels = load_sample_image("flower.jpg")[:200:2, :400:2]
    preprocessing = Preprocessing(112, 128, resize="shorter_side")
    plan = crop_plan(100, 200, preprocessing, crops)
    found = dict(zip(plan, views_of(pixels, preprocessing, crops), strict=True))
    for crop, view in zip(plan, views_of(pixels[:, ::-1], preprocessing, crops), strict=True):
        np.testing.assert_allclose(view, found[mirror(crop)], atol=0.01)


def test_nothing_is_resized_twice(monkeypatch):
    """For 144 crops the image to four sizes, and twelve squares to that of the crop."""
    sizes = []
    resize = ops.image.resize
    monkeypatch.setattr(ops.image, "resize", lambda x, size, **kw: sizes.append(size) or resize(x, size, **kw))
    for crops, resizes in ((1, 1), (10, 1), (144, 4 + 12)):
        sizes.clear()
        views_of(np.zeros((20, 30, 3), "uint8"), Preprocessing(16, 18), crops)
        assert len(sizes) == resizes


@pytest.mark.parametrize("crops", CROPS)
def test_tiny_images(crops):
    for shape, size in product([(1, 1), (3, 5), (1, 9), (9, 1)], [1, 3, 16]):
        pixels = np.full((*shape, 1), 200, "uint8")
        found = views_of(pixels, Preprocessing(size, size, (0.5,), (0.5,), "shorter_side"), crops)
        assert found.shape == (crops, size, size, 1)
        np.testing.assert_allclose(found, 200, rtol=1e-6)


def test_what_is_refused():
    with pytest.raises(ValueError, match=r"crops=12 must be one of 1, 10, 144"):
        crop_plan(100, 100, RELEASED, 12)
    with pytest.raises(ValueError, match="3000 x 1 px with the shorter side brought to 378 is too large"):
        crop_plan(1, 3000, RELEASED, 144)
    with pytest.raises(ValueError, match="1 x 3000 px with the shorter side brought to 378 is too large"):
        views_of(np.zeros((3000, 1, 3), "uint8"), replace(RELEASED, resize="shorter_side"), 10)
