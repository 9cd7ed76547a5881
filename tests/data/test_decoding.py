import dataclasses
import errno
import io
import struct

import numpy as np
import pytest
import tensorflow as tf
from absl import logging
from PIL import Image

from polynet_keras.data import decoding
from polynet_keras.data.decoding import decode_region
from polynet_keras.data.image_files import decode_image
from polynet_keras.data.image_headers import JPEG_SIGNATURE
from polynet_keras.data.pipeline import evaluation_batches
from polynet_keras.data.protocol import Preprocessing
from polynet_keras.data.tensorflow_decoders import whole
from polynet_keras.data.unreadable import Unreadable, reading
from tests.data.arrays import examples_of, png, random_images
from tests.data.hostile import hostile_images

HOSTILE = hostile_images()
SEEDS = [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in (1, 2))]


def decoded(encoded, channels=3, region=whole, names=None):
    """(image, whether it could be read) of each, and what could not."""
    examples = examples_of(encoded, channels=channels, names=names)
    unreadable = Unreadable("skip")
    dataset = tf.data.Dataset.range(len(encoded)).map(
        tf.autograph.experimental.do_not_convert(lambda index: decode_region(index, examples, unreadable, region))
    )
    found = []
    for index, (image, label, readable) in enumerate(dataset.as_numpy_iterator()):
        assert label == (index if readable else 0)
        found.append((image, readable))
    return found, unreadable.skipped


@pytest.fixture(
    scope="module", params=[pytest.param(1, marks=pytest.mark.slow), 3, pytest.param(4, marks=pytest.mark.slow)]
)
def hostile(request):
    channels = request.param
    return channels, *decoded([image.encoded for image in HOSTILE], channels, names=[image.name for image in HOSTILE])


@pytest.mark.parametrize("i", range(len(HOSTILE)), ids=[image.name for image in HOSTILE])
def test_everything_that_folders_hold(hostile, i):
    channels, found, skipped = hostile
    (pixels, readable), expected = found[i], HOSTILE[i]
    if expected.pixels is None:
        assert not readable
        assert skipped[i].startswith(f"{expected.name}: ")
        assert expected.reason in skipped[i]
    else:
        assert readable
        assert i not in skipped
        np.testing.assert_array_equal(pixels, expected.pixels_of(channels))


@pytest.mark.parametrize("seed", SEEDS)
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
        edge = 2 if image.encoded.startswith(JPEG_SIGNATURE) else 0
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


@pytest.mark.parametrize("seed", SEEDS)
def test_damaged_files_are_read_or_named(seed):
    """Bytes of the corpus's files changed at random: nothing but an image or a reason comes of it, and no error."""
    rng = np.random.default_rng(seed)
    damaged = []
    for image in HOSTILE:
        content = bytearray(image.encoded[:20_000])
        for place in rng.integers(0, len(content), 8) if content else ():
            content[place] = rng.integers(0, 256)
        damaged.append(bytes(content))
    found, skipped = decoded(damaged)
    for i, (pixels, readable) in enumerate(found):
        assert readable == (i not in skipped)
        assert pixels.size > 0 if readable else skipped[i].startswith(f"image {i}: ")


@pytest.mark.parametrize("error", [RuntimeError, TypeError, NotImplementedError, struct.error])
def test_whatever_pillow_raises_is_named(monkeypatch, error):
    def fail(*_):
        raise error("of its own")

    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", fail)
    with pytest.raises(ValueError, match=r"^a\.jpg: cannot be read as an image: of its own"):
        decode_image(HOSTILE[0].encoded, 3, "a.jpg")


def test_an_orientation_behind_other_segments():
    rotated = next(image for image in HOSTILE if image.name == "orientation_6.jpg")
    comment = b"\xff\xfe" + struct.pack(">H", 65_000) + bytes(64_998)
    ((pixels, _),), _ = decoded([rotated.encoded[:2] + 4 * comment + rotated.encoded[2:]])
    np.testing.assert_array_equal(pixels, rotated.pixels)


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


@pytest.mark.parametrize("on_error", ["error", "skip"])
def test_storage_that_fails_is_not_the_image(on_error):
    """An image is skipped if it will be unreadable the next time too; here it may well be there."""
    examples = examples_of([png(image) for image in random_images(3)])

    def fails(index):
        if index == 1:
            raise tf.errors.UnknownError(None, None, "Input/output error")  # as TensorFlow's reader does of EIO
        return index

    def read(index):
        return examples.read(tf.ensure_shape(tf.numpy_function(fails, [index], tf.int64), ()))

    failing, unreadable = dataclasses.replace(examples, read=read), Unreadable(on_error)
    dataset = tf.data.Dataset.range(3).map(
        tf.autograph.experimental.do_not_convert(lambda index: decode_region(index, failing, unreadable))
    )
    with pytest.raises(OSError, match=r"image 1: cannot be read: .*Input/output error") as failure, reading(unreadable):
        list(dataset)
    assert failure.value.errno == errno.EIO
    assert unreadable.skipped == {}


def whole_files(height):
    """Of 90 px in a row: a kind for each way through TensorFlow's decoders."""
    (image,) = random_images(1, size=height)
    exif = Image.Exif()
    exif[0x0112] = 6
    rotated = io.BytesIO()
    Image.fromarray(image).save(rotated, "JPEG", exif=exif)
    return [
        png(image),
        tf.io.encode_jpeg(image).numpy(),
        tf.io.encode_jpeg(image, progressive=True).numpy(),
        rotated.getvalue(),
    ]


@pytest.mark.parametrize("finished", [pytest.param(False, marks=pytest.mark.slow), True], ids=["region", "batches"])
def test_too_many_pixels_are_refused_before_tensorflow_decodes_them(monkeypatch, finished):
    """In files that are whole: one whose header lies, TensorFlow would refuse itself."""
    files, ran = whole_files(5) + whole_files(6), []

    def watch(module, name):
        decode = getattr(module, name)

        def watched(*arguments, **options):
            with tf.control_dependencies([tf.numpy_function(lambda: ran.append(name), [], [])]):
                return decode(*arguments, **options)

        monkeypatch.setattr(module, name, watched)

    watch(tf.io, "decode_png")
    watch(tf.image, "decode_and_crop_jpeg")
    monkeypatch.setattr(decoding, "LARGE_PIXELS", 100)
    monkeypatch.setattr(decoding, "MAX_PIXELS", 450)
    monkeypatch.setattr("polynet_keras.data.image_files.MAX_PIXELS", 450)
    if finished:
        unreadable = Unreadable("skip")
        list(evaluation_batches(examples_of(files), Preprocessing(4, 5), 4, unreadable=unreadable).dataset)
        skipped = unreadable.skipped
    else:
        _, skipped = decoded(files)
    assert skipped == {index: f"image {index}: 90 x 6 px is over the limit of 450 pixels" for index in range(4, 8)}
    assert sorted(ran) == ["decode_and_crop_jpeg"] * 3 + ["decode_png"]
