import os

import numpy as np

from polynet_keras.data.duplicates import Duplicates, find_duplicates
from polynet_keras.data.sources import open_splits
from tests.data.arrays import examples_of


def splits(folder, **contents):
    """By split, its files' contents; nothing decodes them."""
    for split, files in contents.items():
        for name in ("cat", "dog"):
            (folder / split / name).mkdir(parents=True)
            for number, content in enumerate(files):
                (folder / split / name / f"{number}.jpg").write_bytes(name.encode() + content)
    return list(open_splits(folder).values())


def test_files_of_the_same_bytes_in_two_splits(tmp_path):
    parts = splits(tmp_path, train=[b"a", b"bb", b"cc"], val=[b"x", b"cc"], test=[b"dddd", b"cc"])
    found = find_duplicates(parts, None)
    assert found.count == 4  # cc, of two classes, in two splits behind the first
    one, other = found.pair
    assert os.path.basename(one) == "2.jpg"
    assert one.startswith(f"{tmp_path}/train/")
    assert os.path.basename(other) == "1.jpg"
    assert found.looked_at == found.alike == 12  # all but those of 7 bytes, which only one split has


def test_only_files_of_equal_size_are_read(tmp_path):
    parts = splits(tmp_path, train=[b"a", b"a"], val=[b"bb", b"bb"])
    assert find_duplicates(parts, None) == Duplicates(0, None, 0, 0)


def test_how_far_it_is_is_told(tmp_path, monkeypatch, caplog):
    """A line a minute, where there is no terminal."""
    caplog.set_level("INFO", logger="absl")
    monkeypatch.setattr("polynet_keras.basics.progress.LINE_SECONDS", 0)
    find_duplicates(splits(tmp_path, train=[b"a"], val=[b"a"]), None)
    assert "looking for duplicates: 4 of 4 images, " in caplog.text


def test_time_runs_out(tmp_path):
    parts = splits(tmp_path, train=[b"a"], val=[b"a"])
    assert find_duplicates(parts, -1.0) == Duplicates(0, None, 0, 4)


def test_what_is_no_file_or_is_gone_is_passed_over(tmp_path):
    arrays = examples_of([b"a", b"b"], np.array([0, 1]))
    assert find_duplicates([arrays, arrays], None) == Duplicates(0, None, 0, 0)
    parts = splits(tmp_path, train=[b"a"], val=[b"a"])
    for path in (tmp_path / "train").rglob("*.jpg"):
        path.unlink()
    assert find_duplicates([*parts, arrays], None).count == 0


def test_copies_in_one_folder_that_is_drawn_from(tmp_path):
    """Parts of one split: their indices are not those of the files."""
    (examples,) = splits(tmp_path, train=[b"same", b"same", b"other"])
    parts = [examples.subset(np.array([5, 0]), "a"), examples.subset(np.array([4, 1]), "b")]
    found = find_duplicates(parts, None)
    assert found.count == 1
    assert found.pair == (f"{tmp_path}/train/cat/0.jpg", f"{tmp_path}/train/cat/1.jpg")
