"""Scores go through a file as they were, and what is no such file is refused in one line."""

import json
import os
import re
from dataclasses import FrozenInstanceError, fields, replace

import numpy as np
import pytest

from polynet_keras.evaluation.scores import Scores
from tests.evaluation.test_ensemble import nets


def test_scores_come_back_as_they_were(tmp_path):
    (scores, *_) = nets(0, 6, 4, (1,), crops=10)
    scores.save(tmp_path / "scores.npz")
    found = Scores.load(tmp_path / "scores.npz")
    for field in fields(Scores):
        expected = getattr(scores, field.name)
        np.testing.assert_array_equal(getattr(found, field.name), expected)
        assert type(getattr(found, field.name)) is type(expected), field.name
    with pytest.raises(FrozenInstanceError):
        found.model = "another"


def test_a_session_shows_one_line_for_many_images():
    (scores, *_) = nets(0, 6, 4, (1,), crops=10)
    expected = f"Scores(6 images, crops of each: 10, 4 classes, model={scores.model!r}, dataset={scores.dataset!r})"
    assert repr(scores) == expected


def test_scores_that_cannot_be():
    (scores, *_) = nets(0, 6, 4, (1,))
    shape = "logits of .* must be " + re.escape("(images, crops, classes) of 6 labels and ")
    for changes, message in (
        ({"logits": scores.logits[:, 0]}, f"{shape}4 classes"),
        ({"logits": scores.logits[1:]}, f"{shape}4 classes"),
        ({"class_names": ("a", "b", "c")}, f"{shape}3 classes"),
        ({"indices": np.array([0, 1, 2, 3, 5, 4])}, "indices must be ascending, one for each label"),
        ({"indices": np.array([0, 1, 2, 3, 4, 4])}, "indices must be ascending, one for each label"),
        ({"indices": np.arange(5)}, "indices must be ascending, one for each label"),
    ):
        with pytest.raises(ValueError, match=message):
            replace(scores, **changes)
    assert replace(scores, indices=np.array([0, 1, 5, 6, 7, 10])).indices[-1] == 10


def test_a_failed_write_leaves_the_older_file(tmp_path, monkeypatch):
    first, second = nets(0, 6, 4, (1, 2))
    file = tmp_path / "scores.npz"
    first.save(file)
    before = file.read_bytes()

    def fails(file, **arrays):
        file.write(b"a beginning")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", fails)
    with pytest.raises(OSError, match="No space left"):
        second.save(file)
    assert file.read_bytes() == before
    assert list(tmp_path.iterdir()) == [file]


def parts_of(scores, tmp_path):
    scores.save(tmp_path / "whole.npz")
    with np.load(tmp_path / "whole.npz") as arrays:
        return dict(arrays)


def test_what_is_no_file_of_scores(tmp_path):
    (scores, *_) = nets(0, 6, 4, (1,))
    parts = parts_of(scores, tmp_path)
    about = json.loads(str(parts["about"]))
    whole = (tmp_path / "whole.npz").read_bytes()
    without = {name: value for name, value in parts.items() if name != "indices"}
    objects = {**parts, "labels": np.array([{}] * 6, object)}
    cases = {
        "text.npz": b"no archive",
        "empty.npz": b"",
        "cut.npz": whole[: len(whole) // 2],
        "array.npz": np.lib.format.magic(1, 0) + whole[:10],
        "without.npz": without,
        "objects.npz": objects,
        "json.npz": {**parts, "about": "{"},
        "list.npz": {**parts, "about": "[1]"},
        "field.npz": {**parts, "about": json.dumps({**about, "another": 1})},
        "protocol.npz": {**parts, "about": json.dumps({**about, "preprocessing": {}})},
        "classes.npz": {**parts, "about": json.dumps({**about, "class_names": ["a"]})},
    }
    for name, content in cases.items():
        if isinstance(content, dict):
            np.savez(tmp_path / name, **content)
        else:
            (tmp_path / name).write_bytes(content)
        for path in (tmp_path / name, os.fspath(tmp_path / name)):
            with pytest.raises(ValueError, match=rf"^{re.escape(str(path))}: not a file of scores: ."):
                Scores.load(path)
    with pytest.raises(ValueError, match=r"none.npz: no such file; `polynet evaluate --scores FILE` writes one$"):
        Scores.load(tmp_path / "none.npz")
    with pytest.raises(ValueError, match="not a file of scores: "):
        Scores.load(tmp_path)
