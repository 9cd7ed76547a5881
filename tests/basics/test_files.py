"""Folders that change places."""

import ctypes

import pytest

from polynet_keras.basics.files import exchange


@pytest.mark.parametrize("in_one_step", [True, False])
def test_folders_change_places(tmp_path, monkeypatch, in_one_step):
    if not in_one_step:
        monkeypatch.setattr(ctypes, "CDLL", lambda *arguments, **options: None)  # as on another system
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text(name)
    exchange(tmp_path / "one", tmp_path / "other")
    assert [(tmp_path / name / "file").read_text() for name in ("one", "other")] == ["other", "one"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one", "other"]


def test_a_folder_that_cannot_take_the_place_leaves_the_other_there(tmp_path, monkeypatch):
    monkeypatch.setattr(ctypes, "CDLL", lambda *arguments, **options: None)
    (tmp_path / "other").mkdir()
    with pytest.raises(FileNotFoundError):
        exchange(tmp_path / "one", tmp_path / "other")
    assert [path.name for path in tmp_path.iterdir()] == ["other"]
