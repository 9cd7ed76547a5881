"""The card of an exported model: each field is checked as it is read, and the error names the file and the field."""

import functools
import json
import operator

import numpy as np
import pytest

from polynet_keras.data.protocol import Preprocessing
from polynet_keras.deployment import artifact
from polynet_keras.deployment.artifact import ExportCard, artifact_path
from polynet_keras.deployment.comparison import Comparison, Top1

CARD = ExportCard(
    format="openvino",
    precision="int8",
    name="runs/1",
    class_names=("a", "b"),
    preprocessing=Preprocessing(8, 9),
    source_hash="0" * 64,
    structure="",
    comparison=Comparison("digits", 3, 1e-3, 1.0, Top1(3, 2, 33.3, -20.0, 90.0)),
    calibration={"data": "digits", "images": 300, "keep_float": ["stem"]},
    versions={"keras": "3.15.1"},
    size=100,
    files={"1/model.xml": "a" * 64},
)


def written(folder, **changes):
    CARD.save(folder)
    path = folder / "card.json"
    values = json.loads(path.read_text())
    for field, value in changes.items():
        *parents, last = field.split("__")
        functools.reduce(operator.getitem, parents, values)[last] = value
    path.write_text(json.dumps(values))
    return path


def test_what_was_saved_is_loaded(tmp_path):
    CARD.save(tmp_path)
    assert ExportCard.load(tmp_path) == CARD


def test_cards_of_the_first_version(tmp_path):
    path = written(tmp_path, calibration=None)
    values = json.loads(path.read_text())
    del values["files"], values["comparison"]["top1"]
    path.write_text(json.dumps(values))
    card = ExportCard.load(tmp_path)
    assert (card.files, card.comparison.top1) == ({}, None)


@pytest.mark.parametrize(
    ("field", "values"),
    [
        ("format", ["caffe", None, ["onnx"], 3]),
        ("precision", ["dynamic", None, 8]),
        ("name", [None, 3, "\udcff", "x" * 5000]),
        ("class_names", ["ab", [], ["a", ""], ["a", 3], ["a", "\udcff"], {"a": 1}]),
        ("preprocessing", [None, [8, 9]]),
        ("preprocessing__mean", ["abc", [0.5, None, 0.5]]),
        ("preprocessing__more", [1]),
        ("source_hash", ["", "g" * 64, "0" * 63, None, 0]),
        ("structure", [None, 3, "x" * 5000]),
        ("comparison", [None, [], "same"]),
        ("comparison__images", [-1, 1.5, "3", None]),
        ("comparison__max_difference", [-1, "0", None, 1e30, True]),
        ("comparison__top1_agreement", [-0.1, 1.1, "1"]),
        ("comparison__data", [None, 3]),
        ("comparison__top1", [3, "same", []]),
        ("comparison__top1__original", [-1, 4, None]),
        ("comparison__top1__exported", [1.5, 4]),
        ("comparison__top1__drop", [None, 100.1, -101, "0"]),
        ("comparison__top1__drop_high", [None, True]),
        ("calibration", [[], "digits", {"a": {"b": {"c": {}}}}, {str(n): n for n in range(101)}, {"a": 10**30}]),
        ("versions", [None, [], {"keras": 3}, {str(n): "" for n in range(101)}]),
        ("size", [-1, 1.5, "100", None, 10**30]),
        ("files", [None, ["1/model.bin"], {"1/model.bin": 3}, {"1/model.bin": "a"}, {"1/model.bin": "g" * 64}]),
        ("more", [1]),
    ],
)
def test_a_wrong_field_is_named(tmp_path, field, values):
    for value in values:
        path = written(tmp_path, **{field: value})
        with pytest.raises(ValueError, match="not the card") as raised:
            ExportCard.load(tmp_path)
        said = str(raised.value)
        assert said.startswith(f"{path}: not the card of an exported model: "), value
        assert field.rpartition("__")[2] in said, value
        assert said.isprintable(), value


def test_a_model_with_other_outputs_than_the_card_has_classes(tmp_path, monkeypatch):
    CARD.save(tmp_path)
    path = artifact_path(tmp_path, "openvino")
    path.parent.mkdir()
    path.touch()
    images = np.zeros((4, 8, 8, 3), "float32")
    for shape in ((4, 3), (4, 1), (4,), (3, 2), (4, 2, 1)):
        monkeypatch.setattr(artifact, "load_artifact", lambda *options, shape=shape: lambda x: np.zeros(shape))
        with pytest.raises(ValueError, match=r"gives .* numbers for 4 images, and its card names 2 classes") as raised:
            artifact.load_exported(tmp_path).run(images)
        assert str(raised.value).startswith(f"{tmp_path}: ")
    monkeypatch.setattr(artifact, "load_artifact", lambda *options: lambda x: np.ones((len(x), 2)))
    assert artifact.load_exported(tmp_path).run(images).sum() == 8
