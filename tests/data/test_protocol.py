"""The protocol: resizing, cropping and normalizing beside other hands, and values that are refused."""

import dataclasses
import json
import warnings

import keras
import numpy as np
import pytest
from keras import ops
from PIL import Image
from sklearn.datasets import load_sample_image

from polynet_keras.data import protocol
from polynet_keras.data.pixels import normalize, warn_of_impossible_range
from polynet_keras.data.protocol import RESIZES, Preprocessing


def released():
    return Preprocessing(image_size=331, resize_size=378)


def test_resize_then_centre_crop_then_normalize():
    """Against the same steps with Pillow's resize, on float pixels: an antialiased bilinear filter by other hands."""
    pixels = np.random.default_rng(0).integers(0, 256, (500, 640, 3)).astype("uint8")
    channels = [
        Image.fromarray(pixels[..., c].astype("float32")).resize((378, 378), Image.Resampling.BILINEAR)
        for c in range(3)
    ]
    resized = np.stack([np.asarray(channel) for channel in channels], axis=-1)
    crop = resized[24 : 24 + 331, 24 : 24 + 331]  # torchvision rounds 23.5 to the even number
    crop = crop / 255
    expected = (crop - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    found = released()(pixels)
    assert found.dtype == "float32"
    # Implementations of the filter differ by up to 0.006 grey levels, that is 1e-4 here; a wrong offset by whole ones.
    np.testing.assert_allclose(found, expected, atol=3e-4)


def test_upscaling_small_scans():
    scan = np.random.default_rng(0).integers(0, 256, (8, 8, 1)).astype("uint8")
    found = Preprocessing(75, 86, (0.5,), (0.5,))(scan)
    assert found.shape == (75, 75, 1)
    resized = Image.fromarray(scan[..., 0].astype("float32")).resize((86, 86), Image.Resampling.BILINEAR)
    np.testing.assert_allclose(found[..., 0], np.asarray(resized)[6:81, 6:81] / 127.5 - 1, atol=1e-5)


@pytest.mark.parametrize(
    ("preprocessing", "words"),
    [
        (Preprocessing(331, 378), "resized to 378 x 378 px, cropped to 331 px"),
        (Preprocessing(96, 96), "resized to 96 x 96 px"),
        (
            Preprocessing(96, 96, resize="shorter_side", decoding="scaled", interpolation="bicubic"),
            "shorter side resized to 96 px, cropped to 96 px, JPEGs decoded at a smaller scale, bicubic",
        ),
        (
            Preprocessing(75, 86, (0, 0, 0.25), (1, 1, 0.5), antialias=False, channel_order="BGR"),
            "resized to 86 x 86 px, cropped to 75 px, without antialiasing, BGR, mean 0, 0, 0.25 and deviation "
            "1, 1, 0.5",
        ),
    ],
)
def test_the_description_has_what_is_unusual(preprocessing, words):
    assert preprocessing.description == words


def photograph(name, turned=False):
    pixels = load_sample_image(name)
    return np.ascontiguousarray(np.rot90(pixels)) if turned else pixels


def of_the_port(pixels, resize):
    """torchvision's Resize and CenterCrop as the port's evaluation chains them, with Pillow, on 8-bit pixels."""
    image = Image.fromarray(pixels)
    if resize == "square":
        size = (378, 378)
    else:
        shorter = min(image.size)
        size = tuple(int(378 * side / shorter) for side in image.size)
    image = image.resize(size, Image.Resampling.BILINEAR)
    left, top = (round((side - 331) / 2) for side in image.size)
    return np.asarray(image.crop((left, top, left + 331, top + 331)))


@pytest.mark.parametrize("name", ["china.jpg", "flower.jpg"])
@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("resize", RESIZES)
def test_photographs_equal_those_of_the_port(name, turned, resize):
    pixels = photograph(name, turned)
    expected = of_the_port(pixels, resize)
    found = Preprocessing(331, 378, resize=resize).crop(pixels)
    assert found.shape == expected.shape == (331, 331, 3)
    assert np.abs(found - expected).max() <= 1.001  # of 255: Pillow rounds twice, by half a level at most
    # A crop that is off by one pixel would not pass for it.
    assert np.abs(found[1:] - expected[:-1]).max() > 20


def test_antialias_is_part_of_the_protocol():
    """Without it each pixel is sampled from its four neighbours, however far apart the samples are."""
    pixels = photograph("china.jpg")
    found = Preprocessing(96, 96, antialias=False).crop(pixels)
    grids = []
    for side in pixels.shape[:2]:
        position = np.clip((np.arange(96) + 0.5) * side / 96 - 0.5, 0, side - 1)
        low = np.floor(position).astype(int)
        grids.append((low, np.minimum(low + 1, side - 1), position - low))
    (top, bottom, dy), (left, right, dx) = grids
    rows = pixels[top] * (1 - dy)[:, None, None] + pixels[bottom] * dy[:, None, None]
    expected = rows[:, left] * (1 - dx)[None, :, None] + rows[:, right] * dx[None, :, None]
    np.testing.assert_allclose(found, expected, atol=0.02)
    assert np.abs(found - Preprocessing(96, 96).crop(pixels)).max() > 20


def test_unknown_resize_is_refused():
    with pytest.raises(ValueError, match=r"resize='squash' must be one of square, shorter_side"):
        Preprocessing(75, 86, resize="squash")


def test_it_travels_as_json():
    preprocessing = Preprocessing(75, 86, (0.5,), (0.25,), "shorter_side", antialias=False)
    assert Preprocessing(**json.loads(json.dumps(dataclasses.asdict(preprocessing)))) == preprocessing


@pytest.mark.parametrize(
    "arguments", [(86, 75), (0, 75), (75, 86, (0.5, 0.5), (1, 1)), (75, 86, (0.5,), (1, 1)), (75, 86, (0.5,), (0.0,))]
)
def test_impossible_values_are_refused(arguments):
    with pytest.raises(ValueError, match=r"resize_size=|mean="):
        Preprocessing(*arguments)


@pytest.mark.parametrize(
    ("values", "found"),
    [
        ([0, 255], None),
        ([-64, 255], None),  # of a bicubic resize
        ([0, 319], None),
        ([-64, 319], None),
        ([-64.5, 255], "far outside"),
        ([0, 319.5], "far outside"),
        ([0, np.nan], "far outside of that range, or not finite"),
        ([0, np.inf], "far outside"),
        ([-np.inf, 0], "far outside"),
        ([-0.5, 20], "they look normalized already"),
        ([-0.5, 20.5], None),
        ([0, 20], None),  # a dark image
        ([-0.001, 0], "they look normalized already"),
        ([0, 0.5, 1], "no value above 1: they look scaled to [0, 1] already. The network"),
        ([0, 0.001], "no value above 1"),
        ([0.5, 1.5], None),
        ([0, 1, 1], None),  # nearly black
        ([0, 0], None),
        ([], None),
    ],
)
@pytest.mark.parametrize("convert", [np.asarray, ops.convert_to_tensor], ids=["array", "tensor"])
def test_ranges_that_no_image_has_are_warned_of(values, found, convert):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        warn_of_impossible_range(convert(np.array(values, "float32")))
    # NumPy and PyTorch have warnings of their own for each other.
    texts = [str(warning.message) for warning in caught if issubclass(warning.category, UserWarning)]
    assert len(texts) == (found is not None)
    assert all(found in text for text in texts)


@pytest.mark.parametrize(
    ("mode", "arguments"),
    [
        ("tf", {"mean": (0.5,) * 3, "std": (0.5,) * 3}),
        ("torch", {}),
        (
            "caffe",
            {"mean": tuple(m / 255 for m in (103.939, 116.779, 123.68)), "std": (1 / 255,) * 3, "channel_order": "BGR"},
        ),
    ],
)
def test_every_way_in_which_keras_applications_normalize(mode, arguments):
    from keras.src.applications.imagenet_utils import preprocess_input

    images = np.random.default_rng(0).uniform(0, 255, (2, 5, 6, 3)).astype("float32")
    expected = preprocess_input(images.copy(), data_format="channels_last", mode=mode)
    np.testing.assert_allclose(Preprocessing(5, 5, **arguments).normalize(images), expected, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("size", [(20, 31), (90, 64)])
def test_bicubic_is_pillows(size):
    """Pillow rounds to 8 bits after each of its two passes, and cuts off what goes beyond: here nothing does."""
    image = np.random.default_rng(0).integers(90, 166, (64, 48, 3)).astype("uint8")
    ours = Preprocessing(4, 4, interpolation="bicubic").resized(image, size)
    theirs = Image.fromarray(image).resize(size[::-1], Image.Resampling.BICUBIC)
    assert np.abs(ours - np.asarray(theirs, "float32")).max() <= 1.5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"interpolation": "nearest"}, "interpolation='nearest' must be one of"),
        ({"interpolation": "bicubic", "antialias": False}, "needs antialias=True"),
        ({"decoding": "half"}, "decoding='half' must be one of exact, scaled"),
        ({"channel_order": "GBR"}, "channel_order='GBR' must be one of"),
        ({"channel_order": "BGR", "mean": (0.5,), "std": (0.5,)}, "BGR has 3 channels"),
    ],
)
def test_protocols_that_there_are_not(arguments, message):
    with pytest.raises(ValueError, match=message):
        Preprocessing(4, 4, **arguments)


def test_the_smallest_image_is_one_pixel_and_a_protocol_stays_what_it_is():
    smallest = Preprocessing(1, 1)
    np.testing.assert_allclose(smallest.crop(np.full((3, 5, 3), 7, "uint8")), [[[7.0] * 3]], rtol=1e-5)
    with pytest.raises(ValueError, match="image_size=0, and that at least 1"):
        Preprocessing(0, 1)
    with pytest.raises(dataclasses.FrozenInstanceError):
        smallest.image_size = 2


@pytest.mark.parametrize("std", [(0.2, 0.0, 0.3), (0.2, 0.3, -0.1), (0.0, 0.0, 0.0)])
def test_no_channel_has_no_spread(std):
    with pytest.raises(ValueError, match="std > 0"):
        Preprocessing(5, 5, std=std)


def test_a_long_image_is_not_resized_to_more_pixels_than_may_be(monkeypatch):
    """50 pixels along the shorter side: at 100 x 240, 120 along the other, which is 6,000 in all."""
    monkeypatch.setattr(protocol, "MAX_PIXELS", 6000)
    resizing = Preprocessing(50, 50, resize="shorter_side")
    assert resizing.resized_shape(100, 240) == (50, 120)
    assert resizing.resized_shape(240, 100) == (120, 50)
    for height, width in ((100, 241), (241, 100)):
        with pytest.raises(ValueError, match=f"^{width} x {height} px with .* brought to 50 is too large"):
            resizing.resized_shape(height, width)
    assert Preprocessing(50, 50).resized_shape(100, 241) == (50, 50)


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="graphs of images are TensorFlow's")
def test_in_a_graph_an_image_has_the_same_size(monkeypatch):
    import tensorflow as tf

    monkeypatch.setattr(protocol, "MAX_PIXELS", 6000)
    sizes = np.array(
        [[100, 240], [240, 100], [100, 241], [241, 100], [7, 7], [1, 1], [3, 5], [1, 3000], [2**31, 2**31]]
    )
    for resizing in (Preprocessing(50, 50, resize="shorter_side"), Preprocessing(50, 77, resize="shorter_side")):

        def of_graph(size, sides=resizing.resized_sides):
            return sides(*tf.unstack(size))

        specification = tf.TensorSpec((2,), tf.int64)
        graph = tf.function(of_graph, [specification], autograph=False)
        for size in sizes:
            high, wide, fits = graph(size)
            assert (high, wide, fits) == resizing.resized_sides(*size.tolist())
    assert Preprocessing(50, 77).resized_sides(*tf.unstack(tf.constant(sizes[3]))) == (77, 77, True)


def test_bicubic_weights_below_zero_bring_no_value_that_images_have_not():
    edges = np.zeros((8, 8, 3), "uint8")
    edges[:, 4:] = 255
    found = Preprocessing(32, 32, interpolation="bicubic").resized(edges, (32, 32))
    assert isinstance(found, np.ndarray)
    assert (found.min(), found.max()) == (0, 255)
    inside = ops.image.resize(edges.astype("float32"), (32, 32), "bicubic", antialias=True, data_format="channels_last")
    inside = ops.convert_to_numpy(inside)
    assert inside.min() < -5
    assert inside.max() > 260
    np.testing.assert_array_equal(found, np.minimum(np.maximum(inside, 0), 255))


@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
@pytest.mark.parametrize("dtype", ["uint8", "int32", "float16", "float32"])
def test_normalized_by_hand(data_format, dtype):
    """Sides of other lengths than the channels, so that no axis passes for another."""
    values = np.random.default_rng(0).integers(0, 256, (2, 5, 7, 3))
    expected = (values / 255 - [0.1, 0.2, 0.3]) / [0.5, 0.6, 0.7]
    if data_format == "channels_first":
        values, expected = np.moveaxis(values, -1, 1), np.moveaxis(expected, -1, 1)
    for convert in (np.asarray, ops.convert_to_tensor, np.ndarray.tolist):
        if convert is np.ndarray.tolist and dtype == "float16":
            continue  # a list has no such numbers
        found = normalize(convert(values.astype(dtype)), (0.1, 0.2, 0.3), (0.5, 0.6, 0.7), data_format)
        assert isinstance(found, np.ndarray) == (convert is np.asarray)
        found = ops.convert_to_numpy(found)
        assert found.dtype == ("float16" if dtype == "float16" else "float32")
        np.testing.assert_allclose(found, expected, atol=5e-3 if dtype == "float16" else 1e-5)


@pytest.mark.parametrize(
    "shape", [(3,), (7, 3), (2, 2, 5, 7, 3), (5, 3, 7), (3, 5, 7), (2, 3, 5, 7), (5, 7, 4), (2, 5, 7, 1)]
)
def test_shapes_that_are_no_images_of_the_channels(shape):
    with pytest.raises(ValueError, match="expected images of 3 channels, 3-D or 4-D, channels_last; got"):
        normalize(np.zeros(shape), (0.5,) * 3, (0.5,) * 3, "channels_last")


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="tensors of unknown shapes are TensorFlow's")
@pytest.mark.parametrize("decoder", ["decode_jpeg", "decode_image"])
def test_tensors_of_unknown_channels_or_rank(decoder):
    """As keras.applications takes them inside tf.data."""
    import tensorflow as tf

    pixels = np.random.default_rng(0).integers(0, 256, (5, 7, 3)).astype("uint8")
    encoded = tf.io.encode_png(pixels).numpy()

    def prepared(encoded):
        return normalize(getattr(tf.io, decoder)(encoded), (0.1, 0.2, 0.3), (0.5, 0.6, 0.7), "channels_last")

    (found,) = tf.data.Dataset.from_tensors(encoded).map(prepared)
    np.testing.assert_allclose(found, normalize(pixels, (0.1, 0.2, 0.3), (0.5, 0.6, 0.7), "channels_last"), atol=1e-5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image_size": 75.0}, "image_size=75.0 must be a whole number of pixels"),
        ({"image_size": "75"}, "image_size='75' must be a whole number of pixels"),
        ({"resize_size": True}, "resize_size=True must be a whole number of pixels"),
        ({"resize_size": 10_000}, "resize_size=10000 must be a whole number of pixels, at most 9,459"),
        ({"mean": "abc"}, r"mean=a, b, c must be finite numbers"),
        ({"mean": (0.5, float("nan"), 0.5)}, "mean=.* must be finite numbers"),
        ({"std": (0.5, float("inf"), 0.5)}, "std=.* must be finite numbers"),
        ({"antialias": "no"}, "antialias='no' must be True or False"),
    ],
)
def test_a_protocol_of_other_types(changes, message):
    with pytest.raises(ValueError, match=message):
        Preprocessing(**{"image_size": 75, "resize_size": 86} | changes)


def test_a_protocol_of_numpys_numbers():
    found = Preprocessing(np.int64(75), np.int32(86), tuple(np.full(3, 0.5, "float32")), np.full(3, 0.25))
    assert (found.image_size, found.channels) == (75, 3)
