"""Large JPEGs at 1/2, 1/4 or 1/8: beside Pillow's draft and beside exact decoding that is averaged over squares."""

import functools
import io
from dataclasses import replace

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from sklearn.datasets import load_sample_image

from polynet_keras.data import decoding
from polynet_keras.data.augmentation import Augmentation
from polynet_keras.data.crops import least_side
from polynet_keras.data.decoding import decode_region
from polynet_keras.data.image_files import UPRIGHT, decode_image, decode_sized
from polynet_keras.data.pipeline import decoded_images, evaluation_batches, training_batches
from polynet_keras.data.protocol import Preprocessing
from polynet_keras.data.unreadable import Unreadable
from polynet_keras.deployment import classify_signature
from tests.data.arrays import examples_of, png

SIZES = {"even": (640, 424), "odd": (637, 419)}
"""Width and height: multiples of 8, and of nothing."""
SCALED = Preprocessing(40, 48, decoding="scaled")


def photograph(size=SIZES["odd"], mode="RGB"):
    return Image.fromarray(load_sample_image("china.jpg")).resize(size).convert(mode)


def jpeg(image, **options):
    file = io.BytesIO()
    image.save(file, "JPEG", quality=92, **options)
    return file.getvalue()


def rotated(value, size=SIZES["odd"], **options):
    exif = Image.Exif()
    exif[0x0112] = value
    return jpeg(photograph(size), exif=exif, **options)


def drafted(encoded, side):
    """By Pillow alone: the image at the smallest scale that leaves the side, to the nearest pixel, upright, in RGB."""
    image = Image.open(io.BytesIO(encoded))
    _, (_, _, wide, high) = image.draft(None, (side, side))  # as it would be with parts of pixels
    orientation = image.getexif().get(0x0112, 1)
    image = image.convert("RGB").crop((0, 0, int(wide + 0.5), int(high + 0.5)))
    return np.asarray(image.transpose(Image.Transpose(UPRIGHT[orientation])) if orientation > 1 else image)


KINDS = {
    "baseline": jpeg(photograph()),
    "even": jpeg(photograph(SIZES["even"])),
    "full_colours": jpeg(photograph(), subsampling="4:4:4"),
    "progressive": jpeg(photograph(), progressive=True),
    "grey": jpeg(photograph(mode="L")),
    "cmyk": jpeg(photograph(mode="CMYK")),
    "orientation_3": rotated(3),
    "orientation_6": rotated(6),
    "orientation_6_even": rotated(6, SIZES["even"]),
    "orientation_7_progressive": rotated(7, progressive=True),
}


def decoded(encoded, side, region=None, channels=3):
    """The pixels, or why there are none. What is traced once, a second's work, serves all files."""
    file, unreadable, decode = _decoder(side, region, channels)
    file.assign(encoded)
    image, _, readable = decode(tf.constant(0, tf.int64))
    return image.numpy() if readable else unreadable.skipped[0]


@functools.cache
def _decoder(side, region, channels):
    file, unreadable = tf.Variable(""), Unreadable("skip")
    examples = replace(examples_of([b""], channels=channels), read=lambda index: (file.read_value(), index))
    return (
        file,
        unreadable,
        tf.function(lambda index: decode_region(index, examples, unreadable, region, least_side=side)),
    )


@pytest.mark.parametrize(
    ("side", "ratio"), [(1, 8), (48, 8), (60, 4), (104, 4), (105, 2), (209, 2), (210, 1), (500, 1)]
)
def test_the_shorter_side_is_never_below_what_is_needed(side, ratio):
    pixels, size = decode_sized(KINDS["orientation_6"], 3, "", least_side=side)
    assert size == (637, 419)
    assert pixels.shape == (int(637 / ratio + 0.5), int(419 / ratio + 0.5), 3)


@pytest.mark.slow
@pytest.mark.parametrize("side", [48, 105, 210])
def test_the_pipeline_scales_as_much(side):
    pixels, _ = decode_sized(KINDS["orientation_6"], 3, "", least_side=side)
    np.testing.assert_array_equal(decoded(KINDS["orientation_6"], side), pixels)


FAST = ("baseline", "grey", "orientation_6")


@pytest.mark.parametrize("kind", [pytest.param(kind, marks=[pytest.mark.slow] * (kind not in FAST)) for kind in KINDS])
def test_the_pipeline_decodes_as_pillows_draft(kind):
    expected = drafted(KINDS[kind], 100)
    np.testing.assert_array_equal(decoded(KINDS[kind], 100), expected)
    np.testing.assert_array_equal(decode_image(KINDS[kind], 3, "", least_side=100), expected)


@pytest.mark.parametrize("kind", ["even", "progressive", "cmyk", "orientation_6_even"])
@pytest.mark.parametrize(("side", "ratio"), [(104, 4), (209, 2)])
def test_a_scaled_image_is_the_mean_of_squares(kind, side, ratio):
    """libjpeg leaves high frequencies out, which is near to averaging: by two levels in the mean here, of 255."""
    exact = decode_image(KINDS[kind], 3, "").astype("float64")
    height, width = (length // ratio for length in exact.shape[:2])
    squares = exact[: height * ratio, : width * ratio].reshape(height, ratio, width, ratio, 3)
    found = decode_image(KINDS[kind], 3, "", least_side=side)[:height, :width]
    assert np.abs(found - squares.mean(axis=(1, 3))).mean() < 2
    # What is off by a pixel would be farther than that.
    assert np.abs(found[1:] - squares.mean(axis=(1, 3))[:-1]).mean() > 4


def inner_part(height, width):
    return height // 5, width // 7, height // 2, width // 2


@pytest.mark.parametrize(
    "kind",
    [
        "orientation_6",
        *(
            pytest.param(kind, marks=pytest.mark.slow)
            for kind in ("baseline", "grey", "orientation_3", "orientation_7_progressive")
        ),
    ],
)
def test_a_part_of_an_image_is_scaled_by_its_own_size(kind):
    """As cut from the whole image at that scale, up to two pixels at the edges, whose neighbours are missing."""

    found = decoded(KINDS[kind], 52, inner_part)
    ratio = 4
    whole = drafted(KINDS[kind], 419 // ratio)
    height, width = decode_image(KINDS[kind], 3, "").shape[:2]
    assert np.abs(np.array(found.shape[:2]) - (height / 2 / ratio, width / 2 / ratio)).max() <= 1
    assert min(found.shape[:2]) >= 52
    differences = []
    for down in (-1, 0, 1, 2):
        for across in (-1, 0, 1, 2):
            top, left = height // 5 // ratio + down, width // 7 // ratio + across
            cut = whole[top : top + found.shape[0], left : left + found.shape[1]]
            differences.append(np.abs(cut.astype(int) - found)[2:-2, 2:-2].max())
    assert min(differences) == 0


def test_a_part_that_pillow_decodes_is_not_scaled():
    found = decoded(
        KINDS["cmyk"], 20, lambda height, width: (tf.constant(10), tf.constant(20), height // 2, width // 2)
    )
    np.testing.assert_array_equal(found, decode_image(KINDS["cmyk"], 3, "")[10 : 10 + 209, 20 : 20 + 318])


def test_other_files_are_decoded_as_ever():
    deep = io.BytesIO()
    Image.fromarray(np.arange(300 * 200, dtype="uint16").reshape(300, 200)).save(deep, "PNG")
    plain = png(np.asarray(photograph()))
    for encoded in (plain, deep.getvalue()):
        np.testing.assert_array_equal(decoded(encoded, 20), decode_image(encoded, 3, ""))


@pytest.mark.parametrize(
    "kind", ["baseline", *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("progressive", "orientation_6"))]
)
def test_a_truncated_file_is_refused_as_ever(kind):
    cut = KINDS[kind][: len(KINDS[kind]) // 2]
    assert decoded(cut, None) == decoded(cut, 20)
    assert "truncated" in decoded(cut, 20)


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_an_exported_signature_decodes_the_same(channels):
    file = KINDS["baseline"]
    found = classify_signature.decode(tf.constant(file), channels, 100)
    np.testing.assert_array_equal(found, decode_image(file, channels, "", least_side=100))


def test_grey_networks():
    found = decoded(KINDS["baseline"], 100, channels=1)
    assert found.shape == (105, 159, 1)
    np.testing.assert_array_equal(found, decode_image(KINDS["baseline"], 1, "", least_side=100))


@pytest.mark.parametrize("resize", [pytest.param("square", marks=pytest.mark.slow), "shorter_side"])
def test_evaluation_prepares_the_scaled_image(resize):
    protocol = Preprocessing(40, 48, resize=resize, decoding="scaled")
    encoded = [KINDS[kind] for kind in ("baseline", "cmyk", "orientation_6")]
    ((images, *_, valid),) = evaluation_batches(examples_of(encoded), protocol, 3).dataset.as_numpy_iterator()
    assert valid.all()
    for image, file in zip(images, encoded, strict=True):
        expected = protocol(decode_image(file, 3, "", least_side=48))
        np.testing.assert_allclose(image, expected, atol=1e-4)
        exact = Preprocessing(40, 48, resize=resize)(decode_image(file, 3, ""))
        # Of the deviation of ImageNet's pixels: a square of 8 px and a filter of 9 are a little wider than one of 9.
        assert 0 < np.abs(image - exact).mean() < 0.1


@pytest.mark.slow
@pytest.mark.parametrize("crop", ["random", "random_resized"])
def test_training_crops_are_near_the_exact_ones(crop):
    encoded = [KINDS["even"], KINDS["orientation_6"]]

    def images(decoding):
        protocol = Preprocessing(40, 48, decoding=decoding)
        batches = training_batches(examples_of(encoded), protocol, 2, 0, Augmentation(crop))
        return np.concatenate([images for images, _ in batches.dataset.take(4).as_numpy_iterator()])

    # Of exact crops, those of more than half the size are sampled without a filter.
    most = {"random": 0.1, "random_resized": 0.15}[crop]
    assert 0 < np.abs(images("scaled") - images("exact")).mean() < most


@pytest.mark.slow
def test_large_images_are_scaled_in_their_turn(monkeypatch):
    """Above the limit, in values and not in a graph: the same pixels, and the budget counts all that are stored."""
    encoded = [KINDS["baseline"], KINDS["orientation_6"], KINDS["cmyk"]]

    def batch():
        return next(iter(evaluation_batches(examples_of(encoded), SCALED, 3).dataset))[0].numpy()

    expected, held = batch(), []
    budget = decoding.IN_WORK
    monkeypatch.setattr(decoding, "LARGE_PIXELS", 1000)
    monkeypatch.setattr(
        decoding, "IN_WORK", type("Watched", (), {"held": lambda _, n: held.append(n) or budget.held(n)})()
    )
    np.testing.assert_allclose(batch(), expected, atol=1e-5)
    assert held == [637 * 419] * 3


@pytest.mark.slow
def test_many_crops_have_a_larger_image():
    assert [least_side(SCALED, crops) for crops in (1, 10, 144)] == [48, 48, round(40 * 352 / 224)]
    assert least_side(Preprocessing(40, 48), 144) is None
    ((image, *_),) = decoded_images(examples_of([KINDS["baseline"]]), 63).dataset.as_numpy_iterator()
    assert image.shape == (1, 105, 159, 3)


def test_arrays_are_pixels_already():
    pixels = np.asarray(photograph())
    np.testing.assert_array_equal(SCALED(pixels), Preprocessing(40, 48)(pixels))


def test_a_scale_is_a_filter():
    with pytest.raises(ValueError, match="decoding='scaled' needs antialias=True"):
        Preprocessing(40, 48, antialias=False, decoding="scaled")
