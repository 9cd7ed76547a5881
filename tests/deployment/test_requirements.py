"""Which versions a format is refused with; each line was tried with these versions, and failed or did not."""

import importlib.metadata
import re

import keras
import pytest

from polynet_keras.cli.main import main
from polynet_keras.deployment import requirements
from polynet_keras.deployment.artifact import ARTIFACTS
from polynet_keras.deployment.requirements import REQUIREMENTS, check_versions

FORMATS = ("saved_model", "onnx", "openvino", "litert")
BROKEN = {"python": "3.12.1", "keras": "3.14.1", "tensorflow": "2.20.0", "wrapt": "1.17.3"}


@pytest.mark.parametrize("format", FORMATS)
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
        check_versions(format, versions)


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize(
    "change",
    [{"python": "3.11.7"}, {"keras": "3.15.0"}, {"tensorflow": "2.21.0"}, {"wrapt": "2.2.0"}, {"wrapt": "2.5.2"}],
)
def test_written_with(format, change):
    check_versions(format, {**BROKEN, **change})


def test_torch():
    """Whatever else is there."""
    with pytest.raises(ValueError, match=r"^torch needs keras 3.15 or later with keras 3.14.1 on Python 3.11.7: pip "):
        check_versions("torch", {"python": "3.11.7", "keras": "3.14.1"})
    with pytest.raises(ValueError, match=r"^torch needs keras 3.15 or later with keras 3.9.2 on "):
        check_versions("torch", {"python": "3.11.7", "keras": "3.9.2"})
    check_versions("torch", {"python": "3.11.7", "keras": "3.15.0"})
    check_versions("torch", {"python": "3.11.7", "keras": "4.0.0"})


def test_every_format_has_an_entry():
    assert REQUIREMENTS.keys() == ARTIFACTS.keys()


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="Keras writes it on the TensorFlow backend")
def test_said_before_weights_are_fetched(tmp_path, monkeypatch, capsys):
    """Those of `imagenet`, which would be fetched."""
    monkeypatch.chdir(tmp_path)
    found = importlib.metadata.version
    monkeypatch.setattr(importlib.metadata, "version", lambda name: BROKEN[name] if name in BROKEN else found(name))
    monkeypatch.setattr(requirements.platform, "python_version", lambda: BROKEN["python"])
    assert main(["export", "--weights=imagenet", "--format=saved_model", "--output=net"]) == 1
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith(
        "polynet: saved_model needs keras 3.15 or later with keras 3.14.1, tensorflow 2.20.0, wrapt 1."
    )
    assert not list(tmp_path.iterdir())
