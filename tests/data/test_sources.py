import gzip
import os
import shutil
import struct

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from polynet_keras.basics.names import shown
from polynet_keras.data.decoding import Unreadable
from polynet_keras.data.fashion_mnist import FOLDER
from polynet_keras.data.image_files import decode_image
from polynet_keras.data.pipeline import reading
from polynet_keras.data.records.write import write_records
from polynet_keras.data.sources import open_source, open_split


def write_images(folder, classes, size=(9, 7)):
    rng = np.random.default_rng(0)
    for name, count in classes.items():
        (folder / name).mkdir()
        for i in range(count):
            Image.fromarray(rng.integers(0, 256, (*size, 3)).astype("uint8")).save(folder / name / f"{i}.png")


def read_all(examples):
    return [(encoded, int(label), int(index)) for encoded, label, index in examples.dataset().as_numpy_iterator()]


def test_digits_are_scikit_learns():
    from sklearn.datasets import load_digits

    source = open_source("digits", seed=0)
    assert source.class_names == tuple("0123456789")
    assert len(source.training) + len(source.held_out) == 1797
    bunch = load_digits()
    originals = []
    for examples in (source.training, source.held_out):
        originals += [int(examples.name_of(i).removeprefix("digit-")) for i in range(len(examples))]
        for i in range(0, len(examples), 100):
            original = originals[i - len(examples)]
            assert examples.label(i) == examples.labels[i] == bunch.target[original]
            np.testing.assert_allclose(examples.image(i)[..., 0] / 255 * 16, bunch.images[original], atol=0.04)
    assert sorted(originals) == list(range(1797))


def test_examples_are_read_in_order_with_their_indices():
    examples = open_source("digits", seed=0).held_out
    read = read_all(examples)
    assert [index for *_, index in read] == list(range(len(examples)))
    assert [label for _, label, _ in read] == examples.labels.tolist()
    for encoded, _, index in read[::50]:
        np.testing.assert_array_equal(decode_image(encoded, 1, ""), examples.image(index))


def test_split_holds_out_a_fifth_of_each_class_and_follows_the_seed():
    a, b, c = (open_source("digits", seed) for seed in (1, 1, 2))
    assert a.held_out.fingerprint == b.held_out.fingerprint
    assert len({part.fingerprint for part in (a.held_out, a.training, c.held_out, c.training)}) == 4
    counts = np.bincount(a.held_out.labels) / (np.bincount(a.held_out.labels) + np.bincount(a.training.labels))
    assert (np.abs(counts - 0.2) < 0.01).all()


def test_folder_of_classes(tmp_path):
    write_images(tmp_path, {"dog": 2, "cat": 10})
    source = open_source(tmp_path, seed=0)
    assert source.class_names == ("cat", "dog")
    assert source.channels == 3
    assert np.bincount(source.held_out.labels).tolist() == [2, 1]
    assert np.bincount(source.training.labels).tolist() == [8, 1]
    for examples in (source.training, source.held_out):
        assert examples.are_files
        for i in range(len(examples)):
            name = examples.name_of(i)
            assert source.class_names[examples.label(i)] in name
            np.testing.assert_array_equal(examples.image(i), np.asarray(Image.open(name)))
    assert len(open_split(tmp_path)) == 12  # to evaluate on, all of it


@pytest.mark.parametrize("name", [b"caf\xe9.png", b"a\nb.png", b"\x1b[31m.png", "\u202egnp.png".encode()])
def test_names_of_files_are_any_bytes(tmp_path, name):
    """Old archives and Windows' disks have Latin-1."""
    write_images(tmp_path, {"dog": 2, "cat": 2})
    path = tmp_path / "cat" / os.fsdecode(name)
    (tmp_path / "cat" / "0.png").rename(path)
    examples = open_split(tmp_path)
    index = [examples.name_of(i) for i in range(4)].index(str(path))
    np.testing.assert_array_equal(examples.image(index), np.asarray(Image.open(path)))
    path.write_bytes(b"no image")
    with pytest.raises(ValueError, match="cannot be read as an image") as error:
        examples.image(index)
    assert str(error.value).isprintable()
    assert shown(path) in str(error.value)


def test_folder_of_splits(tmp_path):
    for split, classes in (("train", {"dog": 3, "cat": 4}), ("val", {"dog": 1}), ("test", {"cat": 2})):
        (tmp_path / split).mkdir()
        write_images(tmp_path / split, classes)
    source = open_source(tmp_path, seed=0)
    assert source.class_names == ("cat", "dog")
    assert source.training.labels.tolist() == [0] * 4 + [1] * 3
    assert source.held_out.labels.tolist() == [1]  # though val has no cat
    assert open_split(tmp_path).labels.tolist() == [1]
    assert open_split(tmp_path, "test").labels.tolist() == [0, 0]
    with pytest.raises(ValueError, match="has no split all; it has train, val, test"):
        open_split(tmp_path, "all")
    (tmp_path / "alone" / "val").mkdir(parents=True)
    write_images(tmp_path / "alone" / "val", {"dog": 3, "cat": 3})
    with pytest.raises(ValueError, match="has the splits val; expected one of train"):  # it is not to train on
        open_source(tmp_path / "alone", seed=0)
    shutil.rmtree(tmp_path / "alone")
    shutil.rmtree(tmp_path / "train")
    with pytest.raises(ValueError, match="has the splits val, test; expected one of train, training and one of val"):
        open_source(tmp_path, seed=0)


def test_records_are_the_images_that_were_written(tmp_path):
    for split, classes in (("train", {"dog": 9, "cat": 8}), ("val", {"dog": 2, "cat": 3})):
        (tmp_path / "images" / split).mkdir(parents=True)
        write_images(tmp_path / "images" / split, classes)
    write_records(tmp_path / "images", tmp_path / "records", shards=2, processes=1)
    records = open_source(tmp_path / "records", seed=0)
    images = open_source(tmp_path / "images", seed=0)
    for ours, theirs in ((records.training, images.training), (records.held_out, images.held_out)):
        assert ours.class_names == theirs.class_names
        assert ours.fingerprint != theirs.fingerprint  # of the same images, but in another order
        assert sorted(part[:2] for part in read_all(ours)) == sorted(part[:2] for part in read_all(theirs))
    assert records.training.name_of(10) == "train-00001-of-00002.tfrecord, record 1"
    # In any order.
    order = [10, 3, 16, 0]
    dataset = tf.data.Dataset.from_tensor_slices(order).map(records.training.read)
    expected = read_all(records.training)
    assert [encoded for encoded, _ in dataset.as_numpy_iterator()] == [expected[i][0] for i in order]


def test_records_without_a_held_out_split_are_split_at_random(tmp_path):
    (tmp_path / "images").mkdir()
    write_images(tmp_path / "images", {"dog": 15, "cat": 15})
    write_records(tmp_path / "images", tmp_path / "records", processes=1)
    source = open_source(tmp_path / "records", seed=0)
    assert (len(source.training), len(source.held_out)) == (24, 6)
    parts = [encoded for part in (source.training, source.held_out) for encoded, *_ in read_all(part)]
    assert len(set(parts)) == 30


def test_damaged_records_are_named(tmp_path):
    (tmp_path / "images").mkdir()
    write_images(tmp_path / "images", {"dog": 5, "cat": 5})
    write_records(tmp_path / "images", tmp_path / "records", processes=1)
    shard = tmp_path / "records" / "train-00000-of-00001.tfrecord"
    content = bytearray(shard.read_bytes())
    content[300] ^= 1
    shard.write_bytes(content)
    with pytest.raises(ValueError, match="corrupted record"), reading(Unreadable()):
        read_all(open_split(tmp_path / "records", "train"))
    shard.write_bytes(content[:-10])
    with pytest.raises(ValueError, match=r"train-00000-of-00001.tfrecord: has .* bytes, not .* --verify"):
        open_split(tmp_path / "records")
    shard.unlink()
    with pytest.raises(ValueError, match=r"train-00000-of-00001.tfrecord: is missing"):
        open_split(tmp_path / "records")


@pytest.mark.parametrize(
    ("classes", "message"),
    [({}, "holds 0 folders"), ({"cat": 3}, "holds 1 folders"), ({"cat": 3, "dog": 1}, "class 'dog' .* has 1 image")],
)
def test_folders_without_classes_are_refused(tmp_path, classes, message):
    write_images(tmp_path, classes)
    with pytest.raises(ValueError, match=message):
        open_source(tmp_path, seed=0)


def test_no_folder():
    with pytest.raises(
        ValueError, match="data='digit' is no folder; expected 'digits', 'fashion_mnist', 'tfds:NAME', a folder of"
    ):
        open_source("digit", seed=0)


def test_fashion_mnist_files(tmp_path, monkeypatch):
    """In the file format of the published files: big-endian counts, then bytes."""
    rng = np.random.default_rng(0)
    expected = {}
    for part, count in (("train", 7), ("t10k", 3)):
        pixels, labels = (
            rng.integers(0, 256, (count, 28, 28)).astype("uint8"),
            rng.integers(0, 10, count).astype("uint8"),
        )
        images = struct.pack(">4I", 2051, count, 28, 28) + pixels.tobytes()
        (tmp_path / f"{part}-images-idx3-ubyte.gz").write_bytes(gzip.compress(images))
        (tmp_path / f"{part}-labels-idx1-ubyte.gz").write_bytes(
            gzip.compress(struct.pack(">2I", 2049, count) + labels.tobytes())
        )
        expected[part] = pixels, labels
    monkeypatch.setattr("polynet_keras.data.fashion_mnist.FOLDER", tmp_path)
    source = open_source("fashion_mnist", seed=0)
    assert (len(source.training), len(source.held_out), source.channels, len(source.class_names)) == (7, 3, 1, 10)
    for examples, part in ((source.training, "train"), (source.held_out, "t10k")):
        pixels, labels = expected[part]
        np.testing.assert_array_equal([examples.image(i)[..., 0] for i in range(len(examples))], pixels)
        np.testing.assert_array_equal([label for _, label, _ in read_all(examples)], labels)


def test_fashion_mnist_that_cannot_be_fetched(tmp_path, monkeypatch):
    monkeypatch.setattr("polynet_keras.data.fashion_mnist.FOLDER", tmp_path / "none")

    def load_data():
        raise Exception("URL fetch failure")  # what Keras raises

    monkeypatch.setattr("keras.datasets.fashion_mnist.load_data", load_data)
    with pytest.raises(ValueError, match="cannot be fetched: URL fetch failure; .* apt install dataset-fashion-mnist"):
        open_source("fashion_mnist", seed=0)


@pytest.mark.skipif(not FOLDER.is_dir(), reason="Debian's package dataset-fashion-mnist is not installed")
def test_fashion_mnist_itself():
    source = open_source("fashion_mnist", seed=0)
    assert (len(source.training), len(source.held_out)) == (60_000, 10_000)
    assert np.bincount(source.training.labels).tolist() == [6000] * 10
    assert np.bincount(source.held_out.labels).tolist() == [1000] * 10
    assert source.class_names[source.held_out.labels[0]] == "Ankle boot"
