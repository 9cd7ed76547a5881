"""Cards come with folders from anybody: each field is checked, and the error names the file and the field."""

import json
import os

import pytest

from polynet_keras.basics import json_fields
from polynet_keras.data.protocol import Preprocessing
from polynet_keras.pretrained import ModelCard

CARD = ModelCard(("a", "crane", "crane", "über"), Preprocessing(75, 86, (0.5,), (0.25,)), 10, 9, "1 x [ir]", "f" * 64)


def written(folder, **changes):
    CARD.save(folder)
    path = folder / "model.json"
    values = json.loads(path.read_text())
    for field, value in changes.items():
        values["preprocessing"] |= {field: value} if field in values["preprocessing"] else {}
        values |= {} if field in values["preprocessing"] else {field: value}
    path.write_text(json.dumps(values))
    return path


def test_what_was_saved_is_loaded(tmp_path):
    CARD.save(tmp_path)
    assert ModelCard.load(tmp_path) == CARD


def test_cards_without_what_came_later(tmp_path):
    path = written(tmp_path)
    values = json.loads(path.read_text())
    del values["structure"], values["held_out_fingerprint"]
    del values["preprocessing"]["interpolation"], values["preprocessing"]["decoding"]
    path.write_text(json.dumps(values))
    assert ModelCard.load(tmp_path).structure == ""
    assert ModelCard.load(tmp_path).preprocessing.decoding == "exact"


HUGE = 10**30


@pytest.mark.parametrize(
    ("field", "values"),
    [
        ("class_names", ["abc", [], None, 3, {"a": 1}, ["a"] * 100_001]),
        ("class_names[1]", [["a", name] for name in ("", " ", None, 3, ["b"], "b" * 501, "\udcff")]),
        ("class", [["a", name] for name in ("b\n", "b\x1b[31m", "\u2028b")]),
        ("held_out", [-1, 1.5, "10", None, True, HUGE]),
        ("held_out_correct", [-1, 11, 9.0, "9"]),
        ("structure", [None, 3, "x" * 5000, "\udcff"]),
        ("held_out_fingerprint", [None, 3, "x" * 5000]),
        ("other", [1]),
        ("preprocessing", [None, [], "abc"]),
        ("image_size", [0, -75, 75.0, "75", True, None, 87]),
        ("resize_size", [74, HUGE, 86.5, "86", 20_000]),
        ("mean", ["abc", [], ["a"], [0.5, 0.5], None, [float("nan")], [float("inf")], [[0.5]], 0.5, [0.5] * 1000]),
        ("std", [[0], [-1], ["a"], [0.1, 0.1], [float("nan")], {}]),
        ("resize", ["none", None, 3, ["square"]]),
        ("antialias", ["no", 1, None]),
        ("interpolation", ["nearest", None]),
        ("channel_order", ["BGR", "GRB", 3]),
        ("decoding", ["half", None, 8]),
    ],
)
def test_a_wrong_field_is_named(tmp_path, field, values):
    key = {"class_names[1]": "class_names", "class": "class_names"}.get(field, field)
    for value in values:
        path = written(tmp_path, **{key: value})
        with pytest.raises(ValueError, match="not a model card") as raised:
            ModelCard.load(tmp_path)
        said = str(raised.value)
        assert said.startswith(f"{path}: not a model card: "), value
        assert field in said or "NaN" in said or "Infinity" in said, value
        assert said.isprintable(), value
        assert len(said) < len(str(path)) + 500, value


@pytest.mark.parametrize("field", ["class_names", "preprocessing", "held_out", "held_out_correct", "image_size"])
def test_a_missing_field_is_named(tmp_path, field):
    path = written(tmp_path)
    values = json.loads(path.read_text())
    (values if field in values else values["preprocessing"]).pop(field)
    path.write_text(json.dumps(values))
    with pytest.raises(ValueError, match=f"model.json: not a model card: the field .*{field} is missing$"):
        ModelCard.load(tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "Expecting value"),
        (b"\xff\xfe", "UTF-8|Expecting|truncated"),
        (b"[" * 1_000_000, "nested too deeply"),
        (b'{"a":' * 500_000, "nested too deeply"),
        (b'{"held_out": 1' + b"0" * 5000 + b"}", "digits"),
        (b" " * (json_fields.MAX_BYTES + 1), "has more than 4,194,304 bytes"),
        (b'"text"', "must be an object"),
        (b"null", "must be an object"),
    ],
    ids=["empty", "no UTF-8", "lists", "objects", "digits", "large", "text", "null"],
)
def test_a_file_that_is_no_card(tmp_path, content, message):
    (tmp_path / "model.json").write_bytes(content)
    with pytest.raises(ValueError, match=f"model.json: not a model card: .*({message})") as raised:
        ModelCard.load(tmp_path)
    assert str(raised.value).isprintable()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="a system without FIFOs")
def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "model.json")
    with pytest.raises(ValueError, match="model.json: not a model card: it is a pipe or a device, not a file"):
        ModelCard.load(tmp_path)
