"""Whole models that claim more than they hold, and damaged ones: one line that names the file, soon."""

import functools
import json
import zipfile
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest

from polynet_keras.pretrained import model_file
from polynet_keras.pretrained.model_file import load_model_file
from polynet_keras.pretrained.open_file import MAX_REASON

MIB = 1 << 20


@functools.cache
def members():
    """Of a small model with an optimizer, as Keras writes it."""
    import tempfile

    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    model.compile("adam", "mse")
    model.optimizer.build(model.trainable_variables)
    with tempfile.TemporaryDirectory() as folder:
        model.save(Path(folder, "net.keras"))
        with zipfile.ZipFile(Path(folder, "net.keras")) as archive:
            return {name: archive.read(name) for name in archive.namelist()}


def write(path, packed=False, **changes):
    changes = {name.replace("__", "."): value for name, value in changes.items()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED if packed else zipfile.ZIP_STORED) as archive:
        for name, content in {**members(), **changes}.items():
            if content is not None:
                archive.writestr(name, content)
    return path


def with_array(tmp_path, fill, group="layers/dense/vars", name="0"):
    path = tmp_path / "member.h5"
    path.write_bytes(members()["model.weights.h5"])
    with h5py.File(path, "r+") as file:
        variables = file[group]
        del variables[name]
        fill(variables)
    return path.read_bytes()


@pytest.fixture
def unasked(monkeypatch):
    """Keras must not see the file."""
    monkeypatch.setattr(keras.saving, "load_model", lambda *arguments, **options: pytest.fail("Keras was asked"))


@pytest.mark.parametrize("compile", [False, True])
@pytest.mark.parametrize("packed", [False, True])
def test_what_keras_writes_is_loaded(tmp_path, compile, packed):
    model = load_model_file(write(tmp_path / "net.keras", packed), compile)
    assert [tuple(w.shape) for w in model.weights] == [(4, 3), (3,)]
    assert (getattr(model, "optimizer", None) is not None) == compile


ARRAYS = {
    "never written": lambda v: v.create_dataset("0", shape=(10**6, 10**6), dtype="f4"),
    "in chunks": lambda v: v.create_dataset("0", shape=(10**6, 10**6), dtype="f4", chunks=(10, 10)),
    "compressed": lambda v: v.create_dataset("0", data=np.zeros(10**6, "f4"), compression="gzip"),
    "another file": lambda v: v.create_dataset("0", shape=(4, 3), dtype="f4", external=[("/dev/zero", 0, 48)]),
    "external link": lambda v: v.__setitem__("0", h5py.ExternalLink("/dev/zero", "/x")),
    "soft link": lambda v: v.__setitem__("0", h5py.SoftLink("/layers/dense/vars/1")),
    "text": lambda v: v.__setitem__("0", "text"),
    "a group in itself": lambda v: v.__setitem__("0", v.parent),
}


@pytest.mark.parametrize("name", ARRAYS)
def test_arrays_are_whole_in_the_file(tmp_path, unasked, name):
    content = with_array(tmp_path, ARRAYS[name])
    path = write(tmp_path / "net.keras", **{"model.weights.h5": content})
    with pytest.raises(ValueError, match=f"^{path}: not a readable Keras model: it is an HDF5 file ") as raised:
        load_model_file(path)
    assert str(raised.value).isprintable()


def test_arrays_of_an_optimizer_too(tmp_path, unasked):
    def fill(variables):
        variables.create_dataset("2", shape=(10**6, 10**6), dtype="f4")

    content = with_array(tmp_path, fill, "optimizer/vars", "2")
    write(tmp_path / "net.keras", **{"model.weights.h5": content})
    with pytest.raises(ValueError, match="'optimizer/vars/2' claims to be"):
        load_model_file(tmp_path / "net.keras")


@pytest.mark.parametrize(
    ("changes", "packed", "message"),
    [
        ({"config.json": b" " * (model_file.MAX_CONFIG + 1)}, True, "'config.json' is larger than 16,777,216 bytes"),
        ({"config.json": b" " * (model_file.MAX_CONFIG + 1)}, False, "'config.json' is larger than 16,777,216 bytes"),
        (
            {"metadata.json": b" " * (model_file.MAX_METADATA + 1)},
            True,
            "'metadata.json' is larger than 1,048,576",
        ),
        ({"config.json": None}, False, "has 'config.json' 0 times"),
        ({"model.weights.h5": None}, False, "has 'model.weights.h5' 0 times"),
        ({"model.weights.h5": b"no HDF5"}, False, "file signature not found"),
        ({"model.weights.h5": None, "model.weights.npz": b""}, False, "has 'model.weights.h5' 0 times"),
    ],
)
def test_members_are_bounded(tmp_path, unasked, changes, packed, message):
    path = write(tmp_path / "net.keras", packed, **changes)
    with pytest.raises(ValueError, match=f"^{path}: not a readable Keras model: .*{message}"):
        load_model_file(path)


def test_assets_and_weights_that_unpack_to_more_are_refused(tmp_path, unasked, monkeypatch):
    monkeypatch.setattr(model_file, "DEFAULT_BUDGET", MIB)
    for name in ("assets/vocabulary.txt", "model.weights.h5"):
        path = write(tmp_path / "net.keras", True, **{name: bytes(3 * MIB)})
        with pytest.raises(ValueError, match=f"'{name}' is larger than 1,048,576 bytes"):
            load_model_file(path)


def test_members_together_are_bounded(tmp_path, unasked, monkeypatch):
    monkeypatch.setattr(model_file, "DEFAULT_BUDGET", MIB)
    path = write(tmp_path / "net.keras", True, **{f"assets/{number}.txt": bytes(MIB // 2) for number in range(3)})
    with pytest.raises(ValueError, match="members are together 1,048,576 bytes larger than it"):
        load_model_file(path)


def test_a_file_that_is_shut(tmp_path, monkeypatch):
    path = write(tmp_path / "net.keras")

    def shut(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("polynet_keras.pretrained.model_file.open_regular", shut)
    with pytest.raises(ValueError, match=f"^{path}: not a readable Keras model: Permission denied$"):
        load_model_file(path)


def test_a_member_that_is_there_twice(tmp_path, unasked):
    path = write(tmp_path / "net.keras")
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate name"):
        archive.writestr("config.json", b"{}")
    with pytest.raises(ValueError, match="has 'config.json' 2 times"):
        load_model_file(path)


@pytest.mark.parametrize(
    "config",
    [
        b"",
        b"[]",
        b"{}",
        b"\xff",
        b"[" * 100_000,
        json.dumps({"module": "keras", "class_name": "Dense", "config": {"units": "many"}}).encode(),
        json.dumps({"module": "nowhere", "class_name": "Net\n\x1b[31m", "config": {}}).encode(),
        json.dumps({"module": "keras", "class_name": "Model", "config": {"layers": 3}}).encode(),
    ],
)
def test_configurations_of_nothing_are_one_line(tmp_path, config):
    path = write(tmp_path / "net.keras", **{"config.json": config})
    with pytest.raises(ValueError, match=f"^{path}: not a readable Keras model: .") as raised:
        load_model_file(path)
    assert str(raised.value).isprintable()
    assert len(str(raised.value)) < len(str(path)) + MAX_REASON + 100


def test_python_code_in_a_model_is_not_run(tmp_path):
    model = keras.Sequential([keras.Input((4,)), keras.layers.Lambda(lambda x: x)])
    model.save(tmp_path / "net.keras")
    with pytest.raises(ValueError, match=r"net.keras: not a readable Keras model: .*(unsafe|lambda|Lambda)"):
        load_model_file(tmp_path / "net.keras")
