import contextlib
import io
import struct
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


SMALL, NO_FIELDS = npy(np.zeros(3)), npy(np.array("{}"))


def with_header(old, new):
    """The bytes of `SMALL` with a part of its header in other words, of the same length."""
    header = SMALL.replace(old, new, 1)
    missing = len(SMALL) - len(header)
    return (
        header.replace(b" \n", b" " * (missing + 1) + b"\n", 1)
        if missing > 0
        else header.replace(b" " * -missing, b"", 1)
    )


@pytest.mark.parametrize(
    ("members", "compression", "message"),
    [
        (
            {"rows": with_header(b"(3,)", b"(9999999999999,)")},
            zipfile.ZIP_STORED,
            "rows claims 79999999999992 bytes and has 152$",
        ),
        ({"rows": with_header(b"(3,)", b"(%d, 0)" % 10**30)}, zipfile.ZIP_STORED, "."),
        ({"rows": with_header(b"}", b" ")}, zipfile.ZIP_STORED, "."),
        ({"rows": SMALL}, zipfile.ZIP_DEFLATED, r"(about|rows) is compressed; write the file with"),
        ({"about": with_header(b"(3,)", b"(9999999999999,)")}, zipfile.ZIP_STORED, "about claims"),
        ({"about": npy(np.array("[1]"))}, zipfile.ZIP_STORED, "about is not a JSON object"),
    ],
    ids=["huge", "overflow", "no brace", "compressed", "huge about", "list"],
)
def test_what_a_file_claims_is_bounded(tmp_path, members, compression, message):
    """A few bytes that stand for gigabytes are refused before NumPy allocates anything."""
    archive(tmp_path / "value.npz", compression, **{"rows": SMALL, "about": NO_FIELDS, **members})
    with pytest.raises(ValueError, match=r"value\.npz: not a file of values: " + message):
        read(tmp_path / "value.npz")


def test_an_archive_that_claims_more_than_the_file_has(tmp_path):
    path = tmp_path / "value.npz"
    archive(path, rows=SMALL, about=NO_FIELDS)
    size = struct.pack("<2I", len(SMALL), len(SMALL))
    content = path.read_bytes()
    assert content.count(size) == 2  # before the member, and in the directory
    path.write_bytes(content.replace(size, struct.pack("<2I", 1 << 31, 1 << 31)))
    with pytest.raises(ValueError, match="rows claims 2147483648 bytes, and at most"):
        read(path)


def test_a_member_beside_that_is_no_npy_is_not_read(tmp_path):
    """`numpy.load` prefers `rows` to `rows.npy`."""
    write_arrays(tmp_path / "value.npz", Value(np.arange(4.0), "one"), ["rows"])
    with zipfile.ZipFile(tmp_path / "value.npz", "a") as file:
        file.writestr("rows", with_header(b"(3,)", b"(9999999999999,)"))
    np.testing.assert_array_equal(read(tmp_path / "value.npz")["rows"], np.arange(4.0))


def test_text_that_is_too_long(tmp_path, monkeypatch):
    monkeypatch.setattr(array_files, "MAX_ABOUT", 100)
    archive(tmp_path / "value.npz", rows=SMALL, about=NO_FIELDS)
    with pytest.raises(ValueError, match="about claims .* bytes, and at most 100 are possible"):
        read(tmp_path / "value.npz")


def test_files_that_are_damaged_at_random(tmp_path):
    """Whatever bytes change: the arrays, or an error that says so."""
    path = tmp_path / "value.npz"
    write_arrays(path, Value(np.arange(4.0), "one"), ["rows"])
    whole, rng = path.read_bytes(), np.random.default_rng(0)
    for _ in range(2000):
        damaged = bytearray(whole)
        for place in rng.integers(len(whole), size=rng.integers(1, 4)):
            damaged[place] = rng.integers(256)
        path.write_bytes(damaged[: rng.integers(len(whole)) if rng.random() < 0.2 else None])
        with contextlib.suppress(ValueError):
            read(path)
