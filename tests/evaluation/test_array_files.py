import contextlib
import io
import zipfile
from dataclasses import dataclass

import numpy as np
import pytest

from polynet_keras.evaluation import array_files
from polynet_keras.evaluation.array_files import errors_of_file, read_arrays, write_arrays


@dataclass
class Value:
    rows: np.ndarray
    name: str


def read(path):
    with errors_of_file(path, "values", "a command"):
        return read_arrays(path, ["rows"])


def npy(array):
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def archive(path, compression=zipfile.ZIP_STORED, **members):
    with zipfile.ZipFile(path, "w", compression) as file:
        for name, content in members.items():
            file.writestr(f"{name}.npy", content)


@pytest.mark.parametrize(
    "rows", [np.arange(6.0).reshape(2, 3), np.zeros((0, 4), "float32"), np.array(["a", "caf\u00e9"])]
)
def test_arrays_come_back(tmp_path, rows):
    write_arrays(tmp_path / "value.npz", Value(rows, "one"), ["rows"])
    fields = read(tmp_path / "value.npz")
    np.testing.assert_array_equal(fields["rows"], rows)
    assert fields["rows"].dtype == rows.dtype
    assert fields["name"] == "one"


def test_what_a_file_claims_is_bounded(tmp_path, monkeypatch):
    """A few bytes that stand for gigabytes are refused before NumPy allocates anything."""
    path, about = tmp_path / "value.npz", npy(np.array("{}"))
    small = npy(np.zeros(3))
    huge = small.replace(b"(3,)", b"(9999999999999,)").replace(b" " * 12, b"", 1)
    assert len(huge) == len(small)
    monkeypatch.setattr(np, "load", lambda *_, **__: pytest.fail("the arrays were loaded"))
    for members, compression, message in (
        ({"rows": huge, "about": about}, zipfile.ZIP_STORED, r"rows\.npy claims 79999999999992 bytes and has 152$"),
        ({"rows": small, "about": about}, zipfile.ZIP_DEFLATED, r"rows\.npy is compressed; write the file with"),
        ({"rows": small, "about": huge}, zipfile.ZIP_STORED, r"about\.npy claims"),
    ):
        archive(path, compression, **members)
        with pytest.raises(ValueError, match=r"value\.npz: not a file of values: " + message):
            read(path)
    monkeypatch.setattr(array_files, "MAX_ABOUT", 100)
    archive(path, rows=small, about=about)
    with pytest.raises(ValueError, match="about has more than"):
        read(path)


def test_files_that_are_damaged_at_random(tmp_path):
    """Whatever bytes change: the arrays, or an error that says so."""
    path = tmp_path / "value.npz"
    write_arrays(path, Value(np.arange(4.0), "one"), ["rows"])
    whole, rng = path.read_bytes(), np.random.default_rng(0)
    for _ in range(500):
        damaged = bytearray(whole)
        for place in rng.integers(len(whole), size=rng.integers(1, 4)):
            damaged[place] = rng.integers(256)
        path.write_bytes(damaged[: rng.integers(len(whole)) if rng.random() < 0.2 else None])
        with contextlib.suppress(ValueError):
            read(path)
