"""Features in files: what was written is read again, by index, and half a file is none."""

import errno
import weakref

import ml_dtypes
import numpy as np
import pytest

from polynet_keras.training.features.files import CHUNK, FeatureFiles

COUNT = 2 * CHUNK + 5


def written(folder, dtype="float32", shape=(2, 3), seed=0):
    """Files of random features, and what is in them."""
    rng = np.random.default_rng(seed)
    files = FeatureFiles(folder, COUNT, shape, dtype)
    numpys = ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype
    features = rng.normal(size=(COUNT, *shape)).astype(numpys)
    labels, readable = rng.integers(0, 9, COUNT), rng.random(COUNT) < 0.7
    for chunk in files.missing():
        of = files.examples_of(chunk)
        files.folder.mkdir(exist_ok=True)
        files.write(chunk, features[of], labels[of], readable[of])
    return files, features, labels, readable


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("shape", [(2, 3), (7,), (3, 2, 2)])
def test_what_was_written_is_read_by_index(tmp_path, dtype, shape):
    _, features, labels, readable = written(tmp_path, dtype, shape)
    files = FeatureFiles(tmp_path, COUNT, shape, dtype)
    assert files.missing() == []
    for indices in (np.arange(COUNT), np.array([COUNT - 1, 0, CHUNK, CHUNK - 1, 0]), np.array([], "int64")):
        found = files.features(indices)
        assert found.dtype == features.dtype
        np.testing.assert_array_equal(found, features[indices])
    np.testing.assert_array_equal(files.facts()[0], labels)
    np.testing.assert_array_equal(files.facts()[1], readable)
    assert sum(file.stat().st_size for file in tmp_path.iterdir()) == pytest.approx(files.bytes, abs=3 * 1024)


def test_a_file_that_is_not_whole_is_missing(tmp_path):
    files, features, *_ = written(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["00000.npy", "00001.npy", "00002.npy"]
    whole = (tmp_path / "00001.npy").read_bytes()
    for spoiled in (whole[:-1], whole[:50], b""):
        (tmp_path / "00001.npy").write_bytes(spoiled)
        assert files.missing() == [1]
    (tmp_path / "00001.npy").unlink()
    assert files.missing() == [1]
    with pytest.raises(OSError, match=r"00001\.npy is gone or incomplete: it was complete when the training began"):
        files.features(np.array([0, CHUNK]))
    np.testing.assert_array_equal(files.features(np.array([1])), features[[1]])
    # Of features of another shape or type, or of other images, it is another file.
    (tmp_path / "00001.npy").write_bytes(whole)
    assert files.missing() == []
    assert FeatureFiles(tmp_path, COUNT, (3, 2), "float32").missing() == [0, 1, 2]
    assert FeatureFiles(tmp_path, COUNT, (2, 3), "float16").missing() == [0, 1, 2]
    assert FeatureFiles(tmp_path, COUNT + 1, (2, 3), "float32").missing() == [2]


def test_labels_are_read_with_one_file_open_at_a_time(tmp_path, monkeypatch):
    """Linux maps 65,530 files at once, and each copy of two million images has almost as many."""
    files, _, labels, readable = written(tmp_path)
    load, opened = np.load, []

    def counted(*arguments, **options):
        assert sum(rows() is not None for rows in opened) <= 1
        rows = load(*arguments, **options)
        opened.append(weakref.ref(rows))
        return rows

    monkeypatch.setattr(np, "load", counted)
    found = files.facts()
    np.testing.assert_array_equal(found[0], labels)
    np.testing.assert_array_equal(found[1], readable)
    assert len(opened) == 3


def test_a_file_that_cannot_be_read_says_why(tmp_path, monkeypatch):
    files, *_ = written(tmp_path)

    def load(*arguments, **options):
        raise OSError(errno.ENOMEM, "Cannot allocate memory")

    monkeypatch.setattr(np, "load", load)
    with pytest.raises(OSError, match=r"00001\.npy cannot be read: Cannot allocate memory"):
        files.features(np.array([CHUNK]))
    assert files.missing() == [0, 1, 2]


def test_what_breaks_while_it_is_written_leaves_no_file(tmp_path, monkeypatch):
    files = FeatureFiles(tmp_path, 4, (2,), "float32")

    def save(path, rows):
        path.write_bytes(b"half")
        raise OSError("the disk is full")

    monkeypatch.setattr(np, "save", save)
    with pytest.raises(OSError, match="the disk is full"):
        files.write(0, np.zeros((4, 2)), np.zeros(4), np.ones(4, bool))
    assert list(tmp_path.iterdir()) == []
