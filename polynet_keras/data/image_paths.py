"""Which image files a user means: files, folders, patterns, and a list on standard input."""

import glob
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import BinaryIO

from absl import logging

from polynet_keras.basics.names import shown
from polynet_keras.data.folders import images_below
from polynet_keras.data.image_files import file_size
from polynet_keras.data.passed_over import IMAGE_SUFFIXES

STDIN = "-"


@dataclass(frozen=True)
class ImagePaths:
    """Files to read as images, in their order.

    Attributes:
        paths: of all files.
        sizes: of those that are there and may be read, by index, in bytes.
        refused: why the others cannot be read, by index; the texts begin with the path.
    """

    paths: tuple[str, ...]
    sizes: dict[int, int]
    refused: dict[int, str]

    def __len__(self) -> int:
        return len(self.paths)


def image_paths(named: str | os.PathLike | Iterable[str | os.PathLike], stdin: BinaryIO | None = None) -> ImagePaths:
    """Lists image files, without opening one.

    Args:
        named: files; folders, which stand for all images below them, sorted, without what `folders.list_folder` passes
            over; and patterns such as `photos/*.jpg` (`**` is any folders), which are taken for names where there are
            such files. A file that is named by itself may have any name.
        stdin: what `"-"` stands for: a list of files and folders, one a line, or with a null character between two.

    Raises:
        ValueError: nothing is named or found, a pattern that nothing matches, or a folder that cannot be read.
    """
    names = [os.fspath(named)] if isinstance(named, str | os.PathLike) else [os.fspath(one) for one in named]
    empty: list[str] = []
    paths = tuple(path for name in names for path in _files(name, stdin, empty))
    if not paths and empty:
        where = f"{shown(empty[0])} holds" if len(empty) == 1 else f"{len(empty):,} folders hold"
        raise ValueError(f"{where} no image; the names of images end in {', '.join(IMAGE_SUFFIXES)}")
    if not paths:
        raise ValueError("no image is named; name image files or folders")
    for folder in empty:
        logging.warning("%s holds no image", shown(folder))
    sizes, refused = {}, {}
    for index, path in enumerate(paths):
        try:
            sizes[index] = file_size(path)
        except ValueError as error:
            refused[index] = str(error)
    return ImagePaths(paths, sizes, refused)


def _files(name: str, stdin: BinaryIO | None, empty: list[str]) -> Iterator[str]:
    """The files that a name stands for; folders that hold none are added to `empty`."""

    def files_of(path: str) -> list[str]:
        if not os.path.isdir(path):
            return [path]
        found = images_below(path)
        if not found:
            empty.append(path)
        return found

    if name == STDIN and stdin is not None:
        found = _lines(stdin.read())
    elif glob.has_magic(name) and not os.path.lexists(name):
        found = sorted(glob.glob(name, recursive=True))
        if not found:
            raise ValueError(f"{shown(name)}: no such file, and as a pattern it matches none")
        files = [path for path in found if not os.path.isdir(path)]
        if "**" in name and files:  # what is in the folders that match, matches too
            found = files
    else:
        found = [name]
    for path in found:
        yield from files_of(path)


def _lines(content: bytes) -> list[str]:
    """The paths of a list, which are bytes: of `find -print0` with a null character after each."""
    lines = content.split(b"\0") if b"\0" in content else content.splitlines()
    return [os.fsdecode(line) for line in lines if line]
