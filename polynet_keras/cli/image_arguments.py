"""The image files in a command's arguments, and messages about unreadable ones."""

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from polynet_keras.basics.names import shown

if TYPE_CHECKING:
    from polynet_keras.data.image_paths import ImagePaths


def named_images(arguments: Sequence[str]) -> "ImagePaths":
    """Returns the files that arguments name; `-` is a list on standard input.

    Raises:
        ValueError: as for `image_paths`, or `-` is given and standard input is closed.
    """
    from polynet_keras.data.image_paths import image_paths

    if "-" not in arguments:
        return image_paths(arguments, None)
    if sys.stdin is None:
        raise ValueError("'-' is a list of files on standard input, which is closed; name the files")
    return image_paths(arguments, sys.stdin.buffer)


def check_one_is_there(images: "ImagePaths") -> None:
    """Raises a `ValueError` unless at least one file exists and can be read."""
    if not images.sizes:
        reason = images.refused[0]
        raise ValueError(reason if len(images) == 1 else f"none of {len(images):,} images can be read; {reason}")


def check_all_were_read(images: int, unreadable: Sequence[tuple[str, str]], count: int) -> None:
    """Raises a `ValueError` if files could not be read.

    Args:
        images: the number of files.
        unreadable: paths and errors of the first unreadable files.
        count: the number of unreadable files.
    """
    if not count:
        return
    if images == 1:
        path, error = unreadable[0]
        raise ValueError(f"{shown(path)}: {error}")
    raise ValueError(f"{count:,} of {images:,} images could not be read")
