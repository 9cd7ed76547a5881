"""Finds the image files that a user names: files, folders, patterns, and a list on standard input."""

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
        paths: paths of all files.
        sizes: sizes of the existing, acceptable files in bytes, by index.
        refused: reasons why the others cannot be read, by index; the texts begin with the path.
    """

    paths: tuple[str, ...]
    sizes: dict[int, int]
    refused: dict[int, str]

    def __len__(self) -> int:
        return len(self.paths)


def image_paths(named: str | os.PathLike | Iterable[str | os.PathLike], stdin: BinaryIO | None = None) -> ImagePaths:
    """Lists image files, without opening one.

    Args:
        named: files; folders, for all images below them, sorted, without those that `folders.list_folder` skips; and
            patterns such as `photos/*.jpg` (`**` is any folders), which count as names if such files exist. A file that
            is named by itself may have any name.
        stdin: the stream for `"-"`: a list of files and folders, one per line, or separated by null characters.

    Raises:
        ValueError: nothing is named or found, nothing matches a pattern, or a folder cannot be read.
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
    """Returns the files of a name; adds folders without images to `empty`."""

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
    """Returns the paths in a list, as bytes; from `find -print0`, each ends with a null character."""
    lines = content.split(b"\0") if b"\0" in content else content.splitlines()
    return [os.fsdecode(line) for line in lines if line]
