"""Which backend of Keras is chosen, known without Keras; and one line where it cannot be."""

import json
import sys

import pytest

from polynet_keras.cli import backend
from polynet_keras.cli.backend import check_backend, chosen_backend
from polynet_keras.cli.main import main


@pytest.fixture(autouse=True)
def settings(monkeypatch, tmp_path):
    """Keras's file, of a home that has none."""
    monkeypatch.delenv("KERAS_BACKEND", raising=False)
    monkeypatch.delenv("KERAS_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".keras").mkdir()
    return tmp_path / ".keras" / "keras.json"


def test_the_order(monkeypatch, settings, tmp_path):
    assert chosen_backend().name == "tensorflow"
    assert chosen_backend().source == "Keras's default"
    settings.write_text(json.dumps({"backend": "jax"}))
    assert (chosen_backend().name, chosen_backend().source) == ("jax", str(settings))
    monkeypatch.setenv("KERAS_BACKEND", "torch")
    assert (chosen_backend().name, chosen_backend().source) == ("torch", "KERAS_BACKEND")
    monkeypatch.setenv("KERAS_BACKEND", "")
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    assert chosen_backend().name == "tensorflow"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is not JSON; correct it, or remove it: Keras writes a new one"),
        ("[]", "is not a JSON object; correct it"),
        ('{"floatx": "float8"}', "floatx must be one of float16, float32, float64; correct it"),
        ('{"image_data_format": "last"}', "image_data_format must be one of channels_last, channels_first; correct it"),
        ('{"epsilon": "small"}', "epsilon must be a number such as 1e-07; correct it"),
        ('{"backend": "theano"}', "backend theano must be one of tensorflow, jax, torch"),
        ('{"backend": ["jax"]}', "must be one of tensorflow, jax, torch"),
    ],
)
def test_a_spoiled_file_is_named(settings, text, message):
    settings.write_text(text)
    with pytest.raises(ValueError, match=r"keras\.json") as caught:
        check_backend()
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "torhc",
            "KERAS_BACKEND=torhc must be one of tensorflow, jax, torch, numpy, openvino, the backends of Keras; ",
        ),
        (
            "torch",
            "not installed: torch, the backend of Keras that KERAS_BACKEND=torch asks for: pip install torch, or",
        ),
    ],
)
def test_a_command_that_imports_keras_says_it_in_one_line(monkeypatch, capsys, name, message):
    def run(*_):
        import keras  # noqa: F401

    monkeypatch.setenv("KERAS_BACKEND", name)
    monkeypatch.setattr(backend, "find_spec", lambda module: None)
    monkeypatch.setattr("polynet_keras.cli.results.run", run)
    monkeypatch.delitem(sys.modules, "keras")
    assert main(["results"]) == 1
    line = capsys.readouterr().err
    assert line.startswith(f"polynet: {message}")
    assert line.count("\n") == 1


def test_a_command_without_keras_does_not_ask(monkeypatch, settings, capsys):
    settings.write_text("{")
    monkeypatch.setattr("polynet_keras.cli.results.run", lambda *_: None)
    assert main(["results"]) == 0
    assert main(["--version"]) == 0
    assert "backend        unknown: " in capsys.readouterr().out


def test_a_package_that_is_missing_is_one_line(monkeypatch, capsys):
    def run(*_):
        import PIL_of_another_name  # noqa: F401

    monkeypatch.setattr("polynet_keras.cli.results.run", run)
    assert main(["results"]) == 1
    said = capsys.readouterr().err
    assert said == "polynet: not installed: PIL_of_another_name; `polynet doctor` lists all that is missing\n"


def test_a_missing_package_of_an_extra_has_its_command(monkeypatch, capsys):
    def run(*_):
        raise ModuleNotFoundError(name="PIL.Image")

    monkeypatch.setattr("polynet_keras.cli.results.run", run)
    assert main(["results"]) == 1
    assert capsys.readouterr().err == (
        "polynet: not installed: pillow; the extra `data` has it: pip install 'polynet_keras[data]'; "
        "`polynet doctor` lists all that is missing\n"
    )
