import gzip
import struct

import numpy as np
import pytest
from PIL import Image

from polynet_keras.data.sources import FASHION_MNIST_FOLDER, image_folder, open_source


def write_images(folder, classes, size=(9, 7)):
    rng = np.random.default_rng(0)
    for name, count in classes.items():
        (folder / name).mkdir()
        for i in range(count):
            Image.fromarray(rng.integers(0, 256, (*size, 3)).astype("uint8")).save(folder / name / f"{i}.png")


def test_digits_are_scikit_learns():
    from sklearn.datasets import load_digits

    source = open_source("digits", seed=0)
    assert source.class_names == tuple("0123456789")
    assert len(source.training) + len(source.held_out) == 1797
    assert set(source.training.names).isdisjoint(source.held_out.names)
    bunch = load_digits()
    for images in (source.training, source.held_out):
        for i in range(0, len(images), 100):
            original = int(images.names[i].removeprefix("digit-"))
            assert images.labels[i] == bunch.target[original]
            np.testing.assert_allclose(images.read(i)[..., 0] / 255 * 16, bunch.images[original], atol=0.04)


def test_split_holds_out_a_fifth_of_each_class_and_follows_the_seed():
    a, b, c = (open_source("digits", seed) for seed in (1, 1, 2))
    assert a.held_out.names == b.held_out.names
    assert a.held_out.names != c.held_out.names
    counts = np.bincount(a.held_out.labels) / (np.bincount(a.held_out.labels) + np.bincount(a.training.labels))
    assert (np.abs(counts - 0.2) < 0.01).all()


def test_folder_of_classes(tmp_path):
    write_images(tmp_path, {"dog": 2, "cat": 10})
    (tmp_path / "notes.txt").write_text("not a class")
    (tmp_path / ".hidden").mkdir()
    (tmp_path / "cat" / "readme.md").write_text("not an image")
    (tmp_path / "cat" / "folder.png").mkdir()
    (tmp_path / "cat" / ".thumbnails").mkdir()
    (tmp_path / "cat" / ".thumbnails" / "0.png").write_bytes((tmp_path / "cat" / "0.png").read_bytes())
    (tmp_path / "cat" / "0.png").rename(tmp_path / "cat" / "folder.png" / "0.PNG")  # any depth, any case
    source = image_folder(tmp_path, seed=0)
    assert source.class_names == ("cat", "dog")
    assert source.channels == 3
    assert np.bincount(source.held_out.labels).tolist() == [2, 1]
    assert np.bincount(source.training.labels).tolist() == [8, 1]
    for images in (source.training, source.held_out):
        for i, name in enumerate(images.names):
            assert source.class_names[images.labels[i]] in name
            np.testing.assert_array_equal(images.read(i), np.asarray(Image.open(name)))


@pytest.mark.parametrize(
    ("classes", "message"),
    [({}, "holds 0 folders"), ({"cat": 3}, "holds 1 folders"), ({"cat": 3, "dog": 1}, "class 'dog' .* has 1 images")],
)
def test_folders_without_classes_are_refused(tmp_path, classes, message):
    write_images(tmp_path, classes)
    with pytest.raises(ValueError, match=message):
        open_source(tmp_path, seed=0)


def test_no_folder():
    with pytest.raises(ValueError, match="data='digit' is no folder; expected 'digits', 'fashion_mnist' or a folder"):
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
    monkeypatch.setattr("polynet_keras.data.sources.FASHION_MNIST_FOLDER", tmp_path)
    source = open_source("fashion_mnist", seed=0)
    assert (len(source.training), len(source.held_out), source.channels, len(source.class_names)) == (7, 3, 1, 10)
    for images, part in ((source.training, "train"), (source.held_out, "t10k")):
        pixels, labels = expected[part]
        np.testing.assert_array_equal([images.read(i)[..., 0] for i in range(len(images))], pixels)
        np.testing.assert_array_equal(images.labels, labels)


def test_fashion_mnist_that_cannot_be_fetched(tmp_path, monkeypatch):
    monkeypatch.setattr("polynet_keras.data.sources.FASHION_MNIST_FOLDER", tmp_path / "none")

    def load_data():
        raise Exception("URL fetch failure")  # what Keras raises

    monkeypatch.setattr("keras.datasets.fashion_mnist.load_data", load_data)
    with pytest.raises(ValueError, match="cannot be fetched: URL fetch failure; .* apt install dataset-fashion-mnist"):
        open_source("fashion_mnist", seed=0)


@pytest.mark.skipif(not FASHION_MNIST_FOLDER.is_dir(), reason="Debian's package dataset-fashion-mnist is not installed")
def test_fashion_mnist_itself():
    source = open_source("fashion_mnist", seed=0)
    assert (len(source.training), len(source.held_out)) == (60_000, 10_000)
    assert np.bincount(source.training.labels).tolist() == [6000] * 10
    assert np.bincount(source.held_out.labels).tolist() == [1000] * 10
    assert source.class_names[source.held_out.labels[0]] == "Ankle boot"
