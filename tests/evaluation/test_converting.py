"""A published file becomes one of this package, or nothing is written: on a small network in the publisher's format.

The full network, beside the publishers' own implementations, is in `tests/pretrained/test_parity.py`.
"""

import dataclasses
import functools
import hashlib
from pathlib import Path

import keras
import numpy as np
import pytest

from polynet_keras import PolyNet
from polynet_keras.data.protocol import Preprocessing
from polynet_keras.evaluation import converting
from polynet_keras.evaluation.converting import convert
from polynet_keras.evaluation.parity import Parity
from polynet_keras.pretrained import stored_arrays
from polynet_keras.pretrained.open_file import opened_file
from polynet_keras.pretrained.stored_arrays import Format
from tests.pretrained.small import STRUCTURE, infer, small, small_published

torch = pytest.importorskip("torch", reason="writes the .pth files (extra `parity`)")

PREPROCESSING = Preprocessing(75, 86)


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    return small_published(tmp_path_factory.mktemp("published"))


@pytest.fixture(autouse=True)
def compared(published, monkeypatch):
    """What is converted is the small network; comparing it says what `compared` holds, and notes how it was asked."""
    compared = {"parity": None}

    def compare(model, format_, path, preprocessing):
        compared.update(logits=infer(model, published.x), format=format_, path=path.path, preprocessing=preprocessing)
        return compared["parity"]

    monkeypatch.setitem(stored_arrays.TABLES, Format.CADENE, lambda: published.table)
    small_net = functools.partial(PolyNet, structure=STRUCTURE, width=0.1, input_shape=(75, 75, 3))
    monkeypatch.setattr(converting, "PolyNet", small_net)
    monkeypatch.setattr(converting, "SQUARE_378", PREPROCESSING)
    monkeypatch.setattr(converting, "compare_with_publisher", compare)
    return compared


def sha256(file):
    return hashlib.sha256(file.read_bytes()).hexdigest()


@pytest.mark.parametrize("logits", [*(pytest.param(one, marks=pytest.mark.slow) for one in (None, 0.0)), 1e-4])
def test_weights(published, compared, tmp_path, logits):
    compared["parity"] = Parity(logits and "pretrainedmodels 0", 0.5, logits, True)
    target = tmp_path / "net.weights.h5"
    done = convert(str(published.file), str(target))
    model = small()
    model.load_weights(target)
    np.testing.assert_allclose(infer(model, published.x), published.expected, rtol=1e-5)
    assert (done.source, done.classes, done.parity) == (published.file, 4, compared["parity"])
    assert (done.source_hash, done.target_hash) == (sha256(published.file), sha256(target))
    assert done.report.format is Format.CADENE
    assert list(tmp_path.iterdir()) == [target]
    # The comparison was of this network, its logits, and its file.
    assert (compared["format"], compared["path"], compared["preprocessing"]) == (
        Format.CADENE,
        published.file,
        PREPROCESSING,
    )
    np.testing.assert_allclose(
        keras.ops.convert_to_numpy(keras.ops.softmax(compared["logits"])), published.expected, rtol=1e-4
    )


@pytest.mark.slow
def test_a_whole_model_gives_probabilities(published, compared, tmp_path):
    done = convert(published.file, tmp_path / "net.keras", compare=False)
    model = keras.saving.load_model(tmp_path / "net.keras")
    np.testing.assert_allclose(infer(model, published.x), published.expected, rtol=1e-5)
    assert done.parity is None
    assert "format" not in compared, "it was compared all the same"


@pytest.mark.slow
def test_without_a_comparison_the_data_extra_is_not_needed(published, monkeypatch, tmp_path):
    def refuse(*needed):
        assert needed == ("data", "PIL", "sklearn")
        raise ValueError("pip install polynet_keras[data]")

    monkeypatch.setattr(converting, "require_extra", refuse)
    with pytest.raises(ValueError, match="pip install"):
        convert(published.file, tmp_path / "net.weights.h5")
    assert not list(tmp_path.iterdir())
    convert(published.file, tmp_path / "net.weights.h5", compare=False)


@pytest.mark.parametrize("logits", [1.01e-4, pytest.param(float("nan"), marks=pytest.mark.slow)])
def test_other_logits_than_the_publishers_and_nothing_is_written(published, compared, tmp_path, logits):
    compared["parity"] = Parity("pretrainedmodels 0", 0.5, logits, True)
    target = tmp_path / "net.weights.h5"
    target.write_text("what was there")
    with pytest.raises(ValueError, match="differ by .* from those of pretrainedmodels 0, more than 0.0001; nothing"):
        convert(published.file, target)
    assert target.read_text() == "what was there"
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize(
    ("source", "file"),
    [
        ("imagenet-cadene", True),
        pytest.param(Path("imagenet-cadene"), False, marks=pytest.mark.slow),
        pytest.param("imagenet-cadene", False, marks=pytest.mark.slow),
        pytest.param(Path("imagenet-cadene"), True, marks=pytest.mark.slow),
    ],
)
def test_a_published_name_is_prepared_as_its_publisher_says(published, compared, monkeypatch, tmp_path, source, file):
    asked = []

    def opened_source(checkpoint):
        asked.append(checkpoint)
        return opened_file(published.file)

    monkeypatch.setattr(converting, "opened_source", opened_source)
    monkeypatch.chdir(tmp_path)
    if file:
        (tmp_path / "imagenet-cadene").write_text("a file of that name is not meant")
    done = convert(source, tmp_path / "net.weights.h5")
    assert [checkpoint.name for checkpoint in asked] == ["imagenet-cadene"]
    assert compared["preprocessing"] == asked[0].preprocessing != PREPROCESSING
    assert done.source == published.file
    with pytest.raises(dataclasses.FrozenInstanceError):
        done.parity = None


def test_a_write_that_fails_leaves_the_older_file(published, monkeypatch, tmp_path):
    target = tmp_path / "net.weights.h5"
    target.write_text("what was there")

    def fill_the_disk(model, path):
        Path(path).write_bytes(b"")
        raise OSError("no space left on device")

    monkeypatch.setattr(keras.Model, "save_weights", fill_the_disk)
    with pytest.raises(OSError, match="no space left"):
        convert(published.file, target, compare=False)
    assert target.read_text() == "what was there"
    assert list(tmp_path.iterdir()) == [target]


def test_what_cannot_be_converted(published, tmp_path, monkeypatch):
    whole = torch.load(published.file, weights_only=True)
    last = next(reversed(published.table))
    headless = {key: value for key, value in whole.items() if not key.startswith(f"{last}.")}
    torch.save(headless, tmp_path / "headless.pth")
    torch.save({**whole, "module0.weight": torch.ones(3, 3, 3, 3)}, tmp_path / "other.pth")
    own = small()
    own.save_weights(tmp_path / "own.weights.h5")
    before = sorted(tmp_path.iterdir())
    for source, message in (
        ("none.pth", r"SOURCE '.*none.pth' is neither a file nor one of .*imagenet-cadene"),
        (".", "is neither a file nor one of"),
        ("own.weights.h5", "is already a file of this package; there is nothing to convert"),
        ("headless.pth", r"has no classifier; PolyNet\(include_top=False"),
        ("other.pth", r"other.pth': .*module0.weight"),
    ):
        with pytest.raises(ValueError, match=message):
            convert(tmp_path / source, tmp_path / "net.weights.h5")
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(ValueError, match="has no classifier"):
        convert("~/headless.pth", tmp_path / "net.weights.h5")
    assert sorted(tmp_path.iterdir()) == before
