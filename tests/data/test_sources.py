import numpy as np
import pytest
from PIL import Image

from polynet_keras.data.sources import image_folder, open_source


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
