"""`polynet doctor` and `--version`: what is there, what is missing, and one line that installs it."""

import importlib.metadata
import re

import pytest

from polynet_keras import __version__
from polynet_keras.basics import extras
from polynet_keras.cli import doctor, installed
from polynet_keras.cli.main import COMMANDS, main
from tests.documents import ROOT


def test_the_table_of_packages_is_that_of_setup():
    text = (ROOT / "setup.py").read_text()
    for extra, packages in extras.PACKAGES.items():
        block = re.search(rf"^{extra.upper()} = \[\n(.*?)^\]", text, re.MULTILINE | re.DOTALL)[1]
        assert sorted(re.findall(r'^    "([\w-]+)', block, re.MULTILINE)) == sorted(packages.values())


def test_the_table_of_commands():
    assert installed.EXTRAS.keys() <= COMMANDS.keys()
    modules = (ROOT / "polynet_keras" / "cli").glob("*.py")
    need = {module.stem for module in modules if re.search(r"require_extra\(", module.read_text())}
    assert need & COMMANDS.keys() - {"doctor"} <= installed.EXTRAS.keys()
    assert {extra for its in installed.EXTRAS.values() for extra in its} == extras.PACKAGES.keys()


def test_versions(capsys):
    assert main(["--version"]) == 0
    lines = [line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines()]
    said = {line[0]: line[1] for line in lines}
    assert said["polynet_keras"] == __version__
    assert said["keras"] == importlib.metadata.version("keras")
    assert said["tensorflow"] == importlib.metadata.version("tensorflow")
    assert said["backend"].startswith("tensorflow (")


def test_all_is_well(capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "polynet-f71d82a5.pth").write_text("")
    monkeypatch.setattr(installed, "missing_packages", lambda extra: [])
    monkeypatch.setattr(doctor, "missing_packages", lambda extra: [])
    assert main(["doctor"]) == 0
    out = capsys.readouterr().out
    assert "\ndevices\n  CPU:0  " in out
    assert re.search(rf"\n  cache +{tmp_path}/models, [\d,.]+ GB free\n", out)
    assert re.search(rf"\n  imagenet-cadene +{tmp_path}/models/polynet-f71d82a5.pth\n", out)
    assert re.search(r"\n  imagenet-tf2cv +not here, polynet-0451-e752c86b", out)
    assert re.search(r"\n  fashion_mnist +/.*weights/polynet-fashion_mnist-18adeee7.weights.h5\n", out)
    assert out.endswith("\n`polynet train` can run here\n")
    assert "to install" not in out


def test_what_is_missing_is_one_line_for_each_kind_of_command(capsys, monkeypatch):
    lacks = {"openvino", "uvicorn", "matplotlib"}
    find = extras.find_spec
    monkeypatch.setattr(extras, "find_spec", lambda module: None if module in lacks else find(module))
    assert main(["doctor"]) == 1
    out = capsys.readouterr().out
    assert "  deploy  missing: openvino\n  serve   missing: uvicorn\n" in out
    lines = dict(line.strip().split("  ", 1) for line in out.partition("can do\n")[2].split("\n\n")[0].splitlines())
    lines = {names: line.strip() for names, line in lines.items()}
    assert lines["export"] == "pip install 'polynet_keras[data,deploy]'"
    assert lines["serve"] == "pip install 'polynet_keras[data,deploy,serve]'"
    (data,) = (line for names, line in lines.items() if "train" in names)
    assert data == "pip install 'polynet_keras[data]'"
    assert "`polynet train` cannot run here:\n  not installed: matplotlib; the extra `data` has it: " in out


def test_another_backend_cannot_train(capsys, monkeypatch):
    monkeypatch.setenv("KERAS_BACKEND", "torch")
    monkeypatch.setattr("polynet_keras.cli.backend.find_spec", lambda module: module)
    assert main(["doctor"]) == 1
    assert "  Keras's backend is torch (KERAS_BACKEND); runs train on tensorflow and jax\n" in capsys.readouterr().out


def test_without_an_installation_packages_are_named(monkeypatch):
    monkeypatch.setattr(extras, "DISTRIBUTION", "polynet_of_another_name")
    assert extras.install_line(["data"]) == "pip install pillow matplotlib scipy scikit-learn tensorboard"


@pytest.mark.parametrize(
    "argv", [["doctor", "x"], ["completion"], ["completion", "fish"], ["completion", "bash", "zsh"]]
)
def test_arguments_that_are_none(capsys, argv):
    assert main(argv) == 1
    assert capsys.readouterr().err.startswith("polynet: ")
