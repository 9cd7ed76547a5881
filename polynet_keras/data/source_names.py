"""Checks of the name in `data`, before anything is opened."""

import os

from polynet_keras.basics.checks import check_choice, near_name
from polynet_keras.basics.names import shown
from polynet_keras.data.folders import EXPECTED, LAYOUTS, check_folder
from polynet_keras.data.records.manifest import MANIFEST
from polynet_keras.data.splits import WHOLE, split_named
from polynet_keras.data.tables import check_table, is_table

DIGITS = "digits"
FASHION_MNIST = "fashion_mnist"
BUILT_IN = (DIGITS, FASHION_MNIST)
"""The named sources; all others are folders, tables, or `tfds:NAME`."""
SPLITS_OF: dict[str, list[str]] = {DIGITS: [], FASHION_MNIST: ["train", "test"]}
"""Splits of the named sources."""
TFDS = "tfds:"


def modules_of(data: str) -> tuple[str, ...]:
    """Returns the modules of the extra `data` that a source needs."""
    return ("sklearn",) if data == DIGITS else ()


def has_name(data: str) -> bool:
    """Whether `data` is a name, and not a path."""
    return data in BUILT_IN or data.startswith(TFDS)


def is_there(data: str) -> bool:
    """Whether `data` is a name, or the path of an existing folder or table."""
    return has_name(data) or os.path.isdir(data) or (is_table(data) and os.path.exists(data))


def _near(data: str) -> str:
    """Returns `; did you mean ...?` with the source, or the entry of the same folder, whose name is nearest."""
    folder, name = os.path.split(data.rstrip("/"))
    try:
        entries = [entry.name for entry in os.scandir(folder or ".") if is_there(entry.path)]
    except (OSError, ValueError):  # the folder is not there either, or cannot be listed
        entries = []
    return near_name(name, [*entries, *([] if folder else BUILT_IN)])


def is_same_data(data: str, other: str) -> bool:
    """Whether two names mean the same source or place."""
    return os.path.realpath(data) == os.path.realpath(other)


def check_data(argument: str, data: str, layout: str = "auto", split: str | None = None) -> list[str] | None:
    """Refuses everything but the name of a source, a folder or a table; and a folder with an ambiguous layout.

    Args:
        argument: name of the argument that gave the data.
        data: the data as given.
        layout: meaning of the folders in a folder of images; see `folders.split_folders`.
        split: required split of a folder or a table.

    Returns:
        The names of its splits, none for a folder of classes; None if they cannot be found quickly.

    Raises:
        ValueError: the data is neither, the layout does not fit, or there is no such split.
    """
    check_choice("layout", layout, LAYOUTS)
    if not is_there(data):
        named = ", ".join(map(repr, BUILT_IN))
        expected = f"expected {named}, '{TFDS}NAME', a table ending in .csv, a folder of records, or {EXPECTED}"
        if os.path.exists(data):
            raise ValueError(f"{argument}={data!r} is neither a folder nor a table; {expected}")
        seen_from = "" if os.path.isabs(data) else f" in {shown(os.getcwd())!r}, where this was started"
        raise ValueError(f"{argument}={data!r} is not there{seen_from}; {expected}{_near(data)}")
    if not has_name(data) and os.path.isdir(data) and not os.path.isfile(os.path.join(data, MANIFEST)):
        splits = check_folder(data, layout)
        if split is not None:
            split_named(splits or [WHOLE], split, data)
        return splits
    if not has_name(data) and is_table(data) and layout == "auto":
        splits = check_table(data, WHOLE)
        if split is not None and splits:
            split_named(splits, split, data)
        return splits or None
    if layout != "auto":
        raise ValueError(f"layout={layout!r} is for a folder of images, and {argument}={data!r} is not one")
    return SPLITS_OF.get(data)
