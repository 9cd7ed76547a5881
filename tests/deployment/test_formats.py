"""The formats: each is a file, all else asks it; and which versions it is refused with.

Each line of versions was tried, and failed or did not.
"""

import dataclasses
import importlib.metadata
import pkgutil
import re

import keras
import numpy as np
import pytest

from polynet_keras.cli.main import main
from polynet_keras.data.protocol import Preprocessing
from polynet_keras.deployment import formats
from polynet_keras.deployment.artifact import ExportCard, load_exported
from polynet_keras.deployment.exporting import export
from polynet_keras.deployment.formats import FORMATS, format_of
from polynet_keras.deployment.formats import format as base
from polynet_keras.deployment.formats.format import Format
from polynet_keras.evaluation.loading import TrainedModel

BY_TENSORFLOW = ("saved_model", "onnx", "openvino", "litert")
BROKEN = {"python": "3.12.1", "keras": "3.14.1", "tensorflow": "2.20.0", "wrapt": "1.17.3"}


@pytest.mark.parametrize("format", BY_TENSORFLOW)
@pytest.mark.parametrize(
    "change", [{}, {"python": "3.13.0"}, {"keras": "3.14.0"}, {"wrapt": "2.0.0"}, {"wrapt": "2.1.0"}]
)
def test_refused_with(format, change):
    versions = {**BROKEN, **change}
    message = (
        f"{format} needs keras 3.15 or later with keras {versions['keras']}, tensorflow 2.20.0, wrapt "
        f"{versions['wrapt']} on Python {versions['python']}: pip install 'keras==3.15.*'"
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        FORMATS[format].check_versions(versions)


@pytest.mark.parametrize("format", BY_TENSORFLOW)
@pytest.mark.parametrize(
    "change",
    [{"python": "3.11.7"}, {"keras": "3.15.0"}, {"tensorflow": "2.21.0"}, {"wrapt": "2.2.0"}, {"wrapt": "2.5.2"}],
)
def test_written_with(format, change):
    FORMATS[format].check_versions({**BROKEN, **change})


def test_torch():
    """Whatever else is there."""
    with pytest.raises(ValueError, match=r"^torch needs keras 3.15 or later with keras 3.14.1 on Python 3.11.7: pip "):
        FORMATS["torch"].check_versions({"python": "3.11.7", "keras": "3.14.1"})
    with pytest.raises(ValueError, match=r"^torch needs keras 3.15 or later with keras 3.9.2 on "):
        FORMATS["torch"].check_versions({"python": "3.11.7", "keras": "3.9.2"})
    FORMATS["torch"].check_versions({"python": "3.11.7", "keras": "3.15.0"})
    FORMATS["torch"].check_versions({"python": "3.11.7", "keras": "4.0.0"})


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="Keras writes it on the TensorFlow backend")
def test_said_before_weights_are_fetched(tmp_path, monkeypatch, capsys):
    """Those of `imagenet`, which would be fetched."""
    monkeypatch.chdir(tmp_path)
    found = importlib.metadata.version
    monkeypatch.setattr(importlib.metadata, "version", lambda name: BROKEN[name] if name in BROKEN else found(name))
    monkeypatch.setattr(base.platform, "python_version", lambda: BROKEN["python"])
    assert main(["export", "--weights=imagenet", "--format=saved_model", "--output=net"]) == 1
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith(
        "polynet: saved_model needs keras 3.15 or later with keras 3.14.1, tensorflow 2.20.0, wrapt 1."
    )
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("savedmodel", "saved_model"),
        ("SavedModel", "saved_model"),
        ("pytorch", "torch"),
        ("ONNX", "onnx"),
        ("openvin", "openvino"),
        ("tf-lite", "litert"),
        ("TFLite", "litert"),
    ],
)
def test_a_name_that_is_near_is_suggested(name, meant):
    with pytest.raises(ValueError, match=f"^format='{name}' must be one of .*, torch; did you mean {meant}[?]$"):
        format_of(name)


def test_a_name_that_is_near_to_none():
    with pytest.raises(ValueError, match=r"^format='caffe' must be one of saved_model, onnx, openvino, litert, torch$"):
        format_of("caffe")


def test_every_file_is_a_format():
    files = {module.name for module in pkgutil.iter_modules(formats.__path__)} - {"format"}
    assert files == FORMATS.keys()


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="Keras writes it on the TensorFlow backend")
def test_a_format_is_added_in_one_place(tmp_path, monkeypatch):
    """Command, checks, export, card and loading know of it what it says itself."""

    def write(path, model, trained, precision, calibration):
        model.save(path)
        path.with_name("precision").write_text(precision)

    def load(path, threads):
        assert path.with_name("precision").read_text() == "float16"
        return keras.saving.load_model(path).predict_on_batch

    def check(path, trained):
        checked.append((path.name, trained.name))

    checked = []
    made_up = Format("made_up", "net.keras", {"float32": (), "float16": (), "int8": ("nncf",)}, write, load, check)
    monkeypatch.setitem(FORMATS, "made_up", made_up)
    image = keras.Input((8, 8, 3), name="image")
    x = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(4, 3)(image))
    model = keras.Model(image, keras.layers.Dense(2, "softmax")(x))
    net = TrainedModel("net", model, Preprocessing(8, 8), ("a", "b"))
    for arguments, message in (
        (("caffe",), "format='caffe' must be one of saved_model, onnx, openvino, litert, torch, made_up"),
        (("made_up", "dynamic"), "precision='dynamic' must be one of float32, float16, int8 for made_up"),
        (("made_up", "int8"), "precision='int8' needs calibration"),
    ):
        with pytest.raises(ValueError, match=message):
            export(net, tmp_path / "net", *arguments)
    card = export(net, tmp_path / "net", "made_up", "float16")
    assert checked == [("net.keras", "net")]
    assert card.files.keys() == {"1/net.keras", "1/precision"}
    assert card.versions.keys() == {"polynet_keras", "keras", "tensorflow"}
    assert ExportCard.load(tmp_path / "net") == card
    x = np.random.default_rng(0).normal(size=(3, 8, 8, 3)).astype("float32")
    np.testing.assert_allclose(load_exported(tmp_path / "net").run(x), model.predict_on_batch(x), atol=1e-5)
    # What loads it, what writes it, and versions that do not.
    for change, message in (
        ({"backend": "torch"}, "Keras writes made_up on the torch backend; this is tensorflow"),
        (
            {"fails_before": {"keras": "99.0"}, "fails_from_python": "3.0"},
            "made_up needs keras 99.0 or later with keras",
        ),
    ):
        monkeypatch.setitem(FORMATS, "made_up", dataclasses.replace(made_up, **change))
        with pytest.raises(ValueError, match=message):
            export(net, tmp_path / "other", "made_up")
    monkeypatch.setitem(FORMATS, "made_up", dataclasses.replace(made_up, runtime=("nncf",)))
    monkeypatch.setattr("polynet_keras.basics.extras.find_spec", lambda module: None)
    with pytest.raises(ValueError, match="not installed: nncf; the extra `deploy` has it"):
        load_exported(tmp_path / "net")
