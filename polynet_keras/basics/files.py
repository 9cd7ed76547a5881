"""Files: written completely or not at all, opened without waiting for pipes, and hashed."""

import contextlib
import ctypes
import hashlib
import os
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, cast

_HERE, _EXCHANGE = -100, 2
"""Constants of Linux: paths start at the working folder (`AT_FDCWD`), and two paths swap (`RENAME_EXCHANGE`)."""


@contextlib.contextmanager
def written_whole(target: Path) -> Iterator[Path]:
    """Yields a path of the target's name in a temporary folder beside it; moves it to `target` if nothing is raised."""
    with tempfile.TemporaryDirectory(prefix=".polynet-", dir=target.parent) as folder:
        partial = Path(folder, target.name)
        yield partial
        os.replace(partial, target)


def exchange(one: Path, other: Path) -> None:
    """Swaps two folders of one file system.

    The swap is one step if the system and the file system support it (Linux: ext4, xfs, btrfs, tmpfs). Elsewhere it
    takes three renames, and `other` is missing for a moment between two of them.
    """
    with contextlib.suppress(OSError, AttributeError):
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.renameat2(_HERE, os.fsencode(one), _HERE, os.fsencode(other), _EXCHANGE) == 0:
            return
    aside = one.with_name(f"{one.name}-aside")
    os.rename(other, aside)
    try:
        os.rename(one, other)
    except OSError:
        os.rename(aside, other)
        raise
    os.rename(aside, one)


def open_regular(path: str | os.PathLike) -> BinaryIO:
    """Opens a file for reading. Unlike `open`, it does not wait for the writer of a pipe.

    Raises:
        OSError: the file cannot be opened.
        ValueError: the path is a pipe or a device. The message continues a sentence that begins with the file's name.
    """
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    try:
        check_regular(os.fstat(descriptor).st_mode)
    except (OSError, ValueError):
        os.close(descriptor)
        raise
    return os.fdopen(descriptor, "rb")


def check_regular(mode: int) -> None:
    """Raises a `ValueError`, whose message follows the file's name, unless a mode (`st_mode`) is that of a file."""
    if not stat.S_ISREG(mode):
        raise ValueError(f"is a {'folder' if stat.S_ISDIR(mode) else 'pipe or a device'}, not a file")


def digest_of(file: BinaryIO, algorithm: str = "sha256") -> str:
    """Returns the hash of the whole content of an open file, in hexadecimal digits."""
    file.seek(0)
    return hashlib.file_digest(cast(Any, file), algorithm).hexdigest()


def file_hash(path: str | os.PathLike) -> str:
    """Returns the SHA-256 of a file, in hexadecimal digits.

    Raises:
        OSError: the file cannot be read.
    """
    with open(path, "rb") as file:
        return digest_of(file)
