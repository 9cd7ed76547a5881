import gzip
import os
import shutil
import struct

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from polynet_keras.basics.names import shown
from polynet_keras.data.fashion_mnist import FOLDER
from polynet_keras.data.image_files import decode_image
from polynet_keras.data.records.write import write_records
from polynet_keras.data.sources import open_source, open_split
from polynet_keras.data.unreadable import Unreadable, reading


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
    assert source.validation.labels.tolist() == [1]  # though val has no cat
    assert source.held_out.labels.tolist() == [0, 0]
    assert open_split(tmp_path).labels.tolist() == [0, 0]
    assert open_split(tmp_path, "val").labels.tolist() == [1]
    with pytest.raises(ValueError, match="has no split all; it has train, val, test"):
        open_split(tmp_path, "all")
    (tmp_path / "alone" / "val").mkdir(parents=True)
    write_images(tmp_path / "alone" / "val", {"dog": 3, "cat": 3})
    with pytest.raises(ValueError, match="has the splits val; expected one of train"):  # it is not to train on
        open_source(tmp_path / "alone", seed=0)
    shutil.rmtree(tmp_path / "alone")
    shutil.rmtree(tmp_path / "train")
    with pytest.raises(ValueError, match="has the splits val, test; expected one of train, training and one of held"):
        open_source(tmp_path, seed=0)


@pytest.mark.parametrize(
    ("training", "held_out", "asked"),
    [
        ("train", "valid", "val"),
        ("Train", "Test", "test"),
        ("TRAINING", "dev", "Validation"),
        ("training", "testing", "test"),
    ],
)
def test_splits_in_every_spelling(tmp_path, training, held_out, asked):
    """None of them is a class: `train/` beside `valid/` would be two, and told apart without a mistake."""
    for split in (training, held_out):
        (tmp_path / split).mkdir()
        write_images(tmp_path / split, {"dog": 3, "cat": 2})
    source = open_source(tmp_path, seed=0)
    assert source.class_names == ("cat", "dog")
    assert (len(source.training), len(source.held_out)) == (5, 5)
    assert training in source.training.name_of(0)
    assert source.seed is None
    assert open_split(tmp_path, asked).name_of(0) == open_split(tmp_path).name_of(0) == source.held_out.name_of(0)


def test_which_split_chooses_and_which_is_held_out(tmp_path):
    """`val` chooses where another one is there to be held out; what neither takes is kept apart."""
    for split in ("train", "val", "test"):
        (tmp_path / split).mkdir()
        write_images(tmp_path / split, {"dog": 3, "cat": 3})

    def parts(share=None):
        source = open_source(tmp_path, seed=0, validation_share=share)
        named = {"validation": source.validation, "held out": source.held_out, **source.unused}
        return {name: part and part.name.rpartition(", ")[2] for name, part in named.items()}

    assert parts() == {"validation": "val", "held out": "test"}
    assert parts(0.0) == {"validation": None, "held out": "test", "val": "val"}
    with pytest.raises(ValueError, match=r"^validation_share=0.3: .* has the split val to choose .* beside test;"):
        parts(0.3)
    (tmp_path / "held_out").mkdir()
    write_images(tmp_path / "held_out", {"dog": 1})
    assert parts() == {"validation": "val", "held out": "held_out", "test": "test"}
    shutil.rmtree(tmp_path / "test")
    shutil.rmtree(tmp_path / "held_out")
    assert parts() == {"validation": None, "held out": "val"}
    assert parts(0.3) == {"validation": "validation", "held out": "val"}


def test_a_share_of_each_class_is_taken_from_the_training_images():
    plain, a, b, c = (open_source("digits", *s) for s in ((1,), (1, "auto", 0.1), (1, "auto", 0.1), (1, "auto", 0.2)))
    assert plain.validation is None
    assert a.held_out.fingerprint == plain.held_out.fingerprint  # which it leaves as it is
    assert a.validation.fingerprint == b.validation.fingerprint != c.validation.fingerprint
    names = [{part.name_of(i) for i in range(len(part))} for part in a.parts]
    assert sum(map(len, names)) == 1797 == len(set.union(*names))
    taken = np.bincount(a.validation.labels)
    assert taken.tolist() == np.round(0.1 * np.bincount(plain.training.labels)).tolist()
    assert open_source("digits", 2, "auto", 0.1).validation.fingerprint != a.validation.fingerprint


def test_small_classes_keep_an_image_to_train_on(tmp_path):
    write_images(tmp_path, {"cat": 3, "dog": 20})
    for share, taken in ((0.01, [1, 1]), (0.99, [1, 15])):  # of 2 and 16
        source = open_source(tmp_path, 0, "auto", share)
        assert np.bincount(source.validation.labels).tolist() == taken
    shutil.rmtree(tmp_path / "cat")
    write_images(tmp_path, {"cat": 2})
    with pytest.raises(ValueError, match=r"class 'cat' .*training has 1 image; .* for validation_share=0.1"):
        open_source(tmp_path, 0, "auto", 0.1)


def test_classes_without_an_image_to_train_on_are_told(tmp_path, caplog):
    data = tmp_path / "data"
    for split, classes in (("train", {"dog": 3}), ("val", {"dog": 1, "cat": 2, "emu": 1})):
        (data / split).mkdir(parents=True)
        write_images(data / split, classes)
    open_source(data, seed=0)
    assert caplog.messages == [f"data='{data}': 2 classes have no image to train on: 'cat', 'emu'"]
    caplog.clear()
    write_records(data, tmp_path / "records", processes=1)
    assert caplog.messages == [f"data='{data}': 2 classes have no image to train on: 'cat', 'emu'"]


def test_a_layout_decides_what_folders_are(tmp_path):
    data = tmp_path / "data"
    for name in ("train", "cat"):
        (data / name).mkdir(parents=True)
        write_images(data / name, {"x": 2, "y": 2})
    with pytest.raises(ValueError, match="--layout=classes"):
        open_source(data, 0)
    with pytest.raises(ValueError, match="--layout=classes"):
        open_split(data)
    assert open_source(data, 0, layout="classes").class_names == ("cat", "train")
    assert open_source(data, 0, layout="splits").class_names == ("x", "y")
    assert len(open_split(data, layout="classes")) == 8
    write_records(data, tmp_path / "records", layout="classes", processes=1)
    assert open_source(tmp_path / "records", 0).class_names == ("cat", "train")
    for data in ("digits", tmp_path / "records"):
        with pytest.raises(ValueError, match="layout='splits' is for a folder of images, and data=.* is not one"):
            open_source(data, 0, layout="splits")


def test_a_table_of_images(tmp_path):
    """It is the folder that it names, whatever the order of its rows."""
    (tmp_path / "images").mkdir()
    write_images(tmp_path / "images", {"dog": 5, "cat": 5})
    rows = [f"images/{name}/{i}.png,{name}\n" for name in ("dog", "cat") for i in (3, 1, 4, 0, 2)]
    (tmp_path / "photos.csv").write_text("path,label\n" + "".join(rows))
    table, folder = open_source(tmp_path / "photos.csv", seed=0), open_source(tmp_path / "images", seed=0)
    for ours, theirs in ((table.training, folder.training), (table.held_out, folder.held_out)):
        assert ours.class_names == theirs.class_names
        assert [ours.name_of(i) for i in range(len(ours))] == [theirs.name_of(i) for i in range(len(theirs))]
        np.testing.assert_array_equal(ours.labels, theirs.labels)
        np.testing.assert_array_equal(ours.file_sizes, theirs.file_sizes)
    np.testing.assert_array_equal(table.training.image(0), folder.training.image(0))
    assert table.training.name == f"{tmp_path}/photos.csv, training"
    (tmp_path / "photos.csv").write_text("path,label\n" + "".join(reversed(rows)))
    assert open_source(tmp_path / "photos.csv", seed=0).held_out.fingerprint == table.held_out.fingerprint
    write_records(tmp_path / "photos.csv", tmp_path / "records", processes=1)
    assert len(open_split(tmp_path / "records", "train")) == 10
    with pytest.raises(ValueError, match="layout='classes' is for a folder"):
        open_split(tmp_path / "photos.csv", layout="classes")
    with pytest.raises(
        ValueError, match=r"layout='splits' is for a folder; data='.*photos.csv' has its splits in a column"
    ):
        write_records(tmp_path / "photos.csv", tmp_path / "other", layout="splits")
    with pytest.raises(ValueError, match=r"data='.*none.csv' is not there"):
        open_split(tmp_path / "none.csv")


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
    [({}, "holds 0 folders"), ({"cat": 3}, "holds 1 folder;"), ({"cat": 3, "dog": 1}, "class 'dog' .* has 1 image")],
)
def test_folders_without_classes_are_refused(tmp_path, classes, message):
    write_images(tmp_path, classes)
    with pytest.raises(ValueError, match=message):
        open_source(tmp_path, seed=0)


def test_no_folder():
    with pytest.raises(
        ValueError,
        match="data='digit' is not there in '.+', where this was started; expected 'digits', 'fashion_mnist', "
        "'tfds:NAME', a table ending in .csv, a folder of",
    ):
        open_source("digit", seed=0)


@pytest.mark.parametrize(
    ("data", "near"),
    [
        ("photoz.csv", "photos.csv"),
        ("phtos", "photos"),
        ("phtos/", "photos"),
        ("a\0/b", None),
        ("digit", "digits"),
        ("notes.tx", None),
    ],
)
def test_data_that_are_not_there_have_a_near_name(tmp_path, monkeypatch, data, near):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos.csv").touch()
    (tmp_path / "notes.txt").touch()  # is no data
    with pytest.raises(ValueError, match="is not there") as error:
        open_source(data, seed=0)
    assert str(error.value).partition("; did you mean ")[2] == (f"{near}?" if near else "")
    with pytest.raises(ValueError, match="photoz' is not there; .*did you mean photos"):
        open_source(str(tmp_path / "photoz"), seed=0)
    with pytest.raises(ValueError, match=r"data='notes.txt' is neither a folder nor a table; expected 'digits', "):
        open_source("notes.txt", seed=0)


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
