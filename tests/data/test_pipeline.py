import keras
import numpy as np
import pytest
import tensorflow as tf

from polynet_keras.data.augmentation import random_crop
from polynet_keras.data.pipeline import Reader, evaluation_batches, training_batches
from polynet_keras.data.preprocessing import Preprocessing
from polynet_keras.data.sources import Images

PREPROCESSING = Preprocessing(75, 86)


def source(count=10, size=None):
    rng = np.random.default_rng(0)
    pixels = [rng.integers(0, 256, (size or 20 + i, 90, 3)).astype("uint8") for i in range(count)]
    return Images(lambda i: pixels[i], np.arange(count), tuple(map(str, range(count))))


@pytest.mark.parametrize(
    "preprocessing", [PREPROCESSING, Preprocessing(75, 86, resize="shorter_side", antialias=False)]
)
def test_evaluation_batches_are_the_protocol_image_by_image(preprocessing):
    images = source()
    batches = list(evaluation_batches(Reader(images), preprocessing, batch_size=4))
    assert [len(labels) for _, labels in batches] == [4, 4, 2]
    assert np.concatenate([labels for _, labels in batches]).tolist() == list(range(10))
    found = np.concatenate([x for x, _ in batches])
    assert found.dtype == "float32"
    for i in range(10):
        np.testing.assert_allclose(found[i], preprocessing(images.read(i)), atol=1e-5)


def test_training_crops_of_images_that_keep_their_aspect_ratio():
    dataset = training_batches(Reader(source()), Preprocessing(75, 86, resize="shorter_side"), 4, seed=0)
    assert [images.shape for images, _ in dataset] == [(4, 75, 75, 3), (4, 75, 75, 3), (2, 75, 75, 3)]


def epochs(seed, count=2):
    dataset = training_batches(Reader(source()), PREPROCESSING, 4, seed)
    return [[(x.numpy(), y.numpy()) for x, y in dataset] for _ in range(count)]


def test_training_batches_hold_every_example_once_in_another_order_each_epoch():
    first, second = ([label for _, labels in epoch for label in labels] for epoch in epochs(seed=0))
    assert sorted(first) == sorted(second) == list(range(10))
    assert first != second


def test_training_batches_follow_the_seed():
    a, b, c = epochs(0), epochs(0), epochs(1)
    for x, y in zip(a, b, strict=True):
        for (images, labels), (images_again, labels_again) in zip(x, y, strict=True):
            np.testing.assert_array_equal(labels, labels_again)
            np.testing.assert_array_equal(images, images_again)
    assert any((x[1] != y[1]).any() for x, y in zip(a[0], c[0], strict=True))


@pytest.mark.parametrize("cached_bytes", [0, 1 << 30])
def test_large_sources_are_mixed_over_their_whole_length(monkeypatch, cached_bytes):
    monkeypatch.setattr("polynet_keras.data.pipeline.CACHED_BYTES", cached_bytes)
    pixel = np.zeros((1, 1, 3), "uint8")
    count = 12_000
    images = Images(lambda i: pixel, np.arange(count), ("",) * count)
    dataset = training_batches(Reader(images), Preprocessing(1, 1), 1000, seed=0)
    first = next(iter(dataset))[1].numpy()
    assert len(set(first)) == 1000
    # The mean of 1000 of 12,000 equally likely numbers has a standard deviation of 12,000 / sqrt(12 · 1000).
    assert abs(first.mean() - count / 2) < 6 * count / np.sqrt(12_000)


def test_channels_first():
    keras.config.set_image_data_format("channels_first")
    images, _ = next(iter(evaluation_batches(Reader(source()), PREPROCESSING, 4)))
    assert images.shape == (4, 3, 75, 75)
    np.testing.assert_allclose(images[0], np.moveaxis(PREPROCESSING(source().read(0)), -1, 0), atol=1e-5)


def test_random_crop_is_uniform_over_positions():
    rows = tf.tile(tf.reshape(tf.range(10), (10, 1, 1)), (1, 10, 1))
    position = tf.concat([rows, tf.transpose(rows, (1, 0, 2))], axis=-1)
    corners = np.array([random_crop(position, 7, tf.constant([i, 3]))[0, 0] for i in range(1600)])
    counts = np.bincount(corners[:, 0] * 4 + corners[:, 1], minlength=16)
    assert len(counts) == 16
    # Multinomial counts of mean 100: six standard deviations.
    assert (np.abs(counts - 100) < 6 * np.sqrt(100 * 15 / 16)).all()


def test_a_reader_keeps_the_error_that_names_the_file():
    def read(i):
        if i == 3:
            raise ValueError("broken.png: cannot be read")
        return np.zeros((9, 9, 3), "uint8")

    reader = Reader(Images(read, np.zeros(5, "int64"), ("",) * 5))
    with pytest.raises(tf.errors.OpError):
        list(evaluation_batches(reader, PREPROCESSING, 2))
    assert str(reader.error) == "broken.png: cannot be read"
