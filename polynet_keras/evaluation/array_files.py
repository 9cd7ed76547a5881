"""Arrays and their metadata in one `.npz` file: the storage of `Scores` and `Features`."""

import contextlib
import dataclasses
import json
import math
import os
import tokenize
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np

from polynet_keras.basics.files import open_regular, written_whole
from polynet_keras.basics.names import shown

DAMAGE = (
    *(OSError, ValueError, KeyError, TypeError, AttributeError, EOFError, RuntimeError, OverflowError, MemoryError),
    *(zipfile.BadZipFile, tokenize.TokenError),
)
"""Errors that zipfile, NumPy and json raise for damaged files, and dataclasses for unknown fields."""
ABOUT = "about"
MAX_ABOUT = 16 << 20
"""Most bytes of the metadata text: ImageNet's class names take 20 kB."""


def write_arrays(path: str | os.PathLike, value: Any, names: Sequence[str]) -> None:
    """Writes a dataclass to an `.npz` file, completely or not at all: arrays, and other fields as JSON in `about`."""
    about = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    arrays = {name: about.pop(name) for name in names}
    with written_whole(Path(path)) as partial, open(partial, "wb") as file:
        np.savez(file, **arrays, about=json.dumps(about, default=dataclasses.asdict))


def read_arrays(path: str | os.PathLike, names: Sequence[str]) -> dict[str, Any]:
    """Reads the fields. It never unpickles, and allocates no array for which the file has no bytes.

    Raises:
        Exception: of many types; call the function inside `errors_of_file`.
    """
    with open_regular(path) as file, zipfile.ZipFile(file) as archive:
        size = os.fstat(file.fileno()).st_size
        about = json.loads(str(_read(archive, ABOUT, min(size, MAX_ABOUT))))
        if not isinstance(about, dict):
            raise ValueError(f"{ABOUT} is not a JSON object")
        return about | {name: _read(archive, name, size) for name in names}


@contextlib.contextmanager
def errors_of_file(path: str | os.PathLike, content: str, command: str) -> Iterator[None]:
    """Turns any error of a bad file into a `ValueError` with one line.

    Args:
        path: path of the file.
        content: what the file should contain.
        command: the command that writes such files.
    """
    try:
        yield
    except FileNotFoundError:
        raise ValueError(f"{shown(path)}: no such file; `{command}` writes one") from None
    except DAMAGE as error:
        raise ValueError(f"{shown(path)}: not a file of {content}: {error}") from None


def _read(archive: zipfile.ZipFile, name: str, most: int) -> np.ndarray:
    """Reads an array from an uncompressed member whose size, checked against its header, is at most `most` bytes."""
    member = archive.getinfo(f"{name}.npy")
    if member.compress_type != zipfile.ZIP_STORED or member.file_size != member.compress_size:
        raise ValueError(f"{name} is compressed; write the file with `numpy.savez`")
    if member.file_size > most:
        raise ValueError(f"{name} claims {member.file_size} bytes, and at most {most} are possible")
    with archive.open(member) as opened:
        claimed = _claimed_bytes(opened)
    if claimed > member.file_size:
        raise ValueError(f"{name} claims {claimed} bytes and has {member.file_size}")
    with archive.open(member) as opened:
        return np.lib.format.read_array(opened, allow_pickle=False)


def _claimed_bytes(file: IO[bytes]) -> int:
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(file)
    return math.prod(shape) * dtype.itemsize
