import numpy as np
import pytest
import tensorflow as tf
from absl import logging

from polynet_keras.data import decoding
from polynet_keras.data.decoding import Unreadable, decode_region
from polynet_keras.data.preprocessing import decode_image
from tests.data.arrays import examples_of, png, random_images
from tests.data.hostile import hostile_images

HOSTILE = hostile_images()


def decoded(encoded, channels=3, region=decoding.whole, names=None):
    """(image, whether it could be read) of each, and what could not."""
    examples = examples_of(encoded, channels=channels, names=names)
    unreadable = Unreadable("skip")
    dataset = examples.dataset().map(
        tf.autograph.experimental.do_not_convert(
            lambda encoded, _, index: decode_region(encoded, index, examples, unreadable, region)
        )
    )
    return list(dataset.as_numpy_iterator()), unreadable.skipped


@pytest.fixture(scope="module")
def hostile():
    return decoded([image.encoded for image in HOSTILE], names=[image.name for image in HOSTILE])


@pytest.mark.parametrize("i", range(len(HOSTILE)), ids=[image.name for image in HOSTILE])
def test_everything_that_folders_hold(hostile, i):
    (pixels, readable), expected = hostile[0][i], HOSTILE[i]
    if expected.pixels is None:
        assert not readable
        assert hostile[1][i].startswith(f"{expected.name}: ")
        assert expected.reason in hostile[1][i]
    else:
        assert readable
        assert i not in hostile[1]
        np.testing.assert_array_equal(pixels, expected.pixels)


@pytest.mark.parametrize("seed", range(3))
def test_a_region_is_cut_from_the_upright_image(seed):
    """Every format and orientation: the region of what the whole image is."""
    readable = [image for image in HOSTILE if image.pixels is not None and min(image.pixels.shape[:2]) > 4]
    share = np.random.default_rng(seed).uniform(0, 0.45, 4)

    def region(height, width):
        sides = tf.cast(tf.stack([height, width, height, width]), tf.float64)
        top, left, bottom, right = tf.unstack(tf.cast(sides * share, tf.int32))
        return top, left, height - bottom - top, width - right - left

    found, _ = decoded([image.encoded for image in readable], region=region)
    for (pixels, _), image in zip(found, readable, strict=True):
        height, width = image.pixels.shape[:2]
        top, left, bottom, right = (int(side * part) for side, part in zip((height, width) * 2, share, strict=True))
        expected = image.pixels[top : height - bottom, left : width - right]
        # Of a JPEG with coarser colours, the neighbours beyond a region's edge are missing when they are made finer.
        edge = 2 if image.encoded.startswith(decoding.JPEG_SIGNATURE) else 0
        inner = (slice(edge, len(expected) - edge), slice(edge, expected.shape[1] - edge))
        np.testing.assert_array_equal(pixels[inner], expected[inner], image.name)
        np.testing.assert_allclose(pixels.astype(int), expected, atol=8 if edge else 0, err_msg=image.name)


def test_photographs_are_tensorflows_to_decode(monkeypatch):
    """Pillow is slower and holds Python's lock: only what TensorFlow cannot read may go there."""
    monkeypatch.setattr(decoding, "decode_image", None)
    names = ("rgb_420.jpg", "progressive.jpg", "orientation_6.jpg", "grey.jpg", "two_frames_mpo.jpg", "rgb.png")
    images = {image.name: image for image in HOSTILE}
    found, skipped = decoded([images[name].encoded for name in names])
    assert all(readable for _, readable in found)
    assert not skipped


@pytest.mark.parametrize("channels", [1, 4])
def test_other_channels(channels):
    images = random_images(3, channels=channels)
    found, _ = decoded([png(image) for image in images], channels)
    for (pixels, _), image in zip(found, images, strict=True):
        np.testing.assert_array_equal(pixels, image)


def test_a_colour_photograph_in_grey_is_pillows():
    photograph = next(image for image in HOSTILE if image.name == "rgb_420.jpg")
    ((pixels, _),), _ = decoded([photograph.encoded], channels=1)
    np.testing.assert_array_equal(pixels, decode_image(photograph.encoded, 1, ""))


def test_files_that_are_too_large(monkeypatch):
    monkeypatch.setattr(decoding, "MAX_ENCODED_BYTES", 100)
    _, skipped = decoded([b"x" * 101])
    assert skipped[0] == "image 0: 101 bytes are over the limit of 100"


def test_skipped_images_are_listed(monkeypatch):
    lines = []
    monkeypatch.setattr(logging, "warning", lambda text, *values: lines.append(text % values))
    unreadable = Unreadable("skip")
    unreadable.log(10)
    assert not lines
    for i in (5, 3):
        unreadable.add(i, ValueError(f"image {i}: broken"))
    unreadable.log(10)
    assert lines == ["skipped 2 of 10 images that cannot be read:\n  image 3: broken\n  image 5: broken"]
    for i in range(100, 130):
        unreadable.add(i, ValueError(f"image {i}: broken"))
    unreadable.log(200)
    assert lines[1].startswith("skipped 32 of 200 images")
    assert lines[1].endswith("image 117: broken\n  and 12 more")


def test_the_policy_is_one_of_two():
    with pytest.raises(ValueError, match="on_error='ignore' must be one of"):
        Unreadable("ignore")
