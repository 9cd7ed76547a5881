"""What `data` may be, by its name: seen before anything is opened."""

import os

from polynet_keras.basics.checks import check_choice
from polynet_keras.basics.names import shown
from polynet_keras.data.folders import EXPECTED, LAYOUTS, check_folder
from polynet_keras.data.records.manifest import MANIFEST
from polynet_keras.data.splits import WHOLE, split_named
from polynet_keras.data.tables import check_table, is_table

DIGITS = "digits"
FASHION_MNIST = "fashion_mnist"
BUILT_IN = (DIGITS, FASHION_MNIST)
"""The sources that have a name; all others are folders, tables, or `tfds:NAME`."""
SPLITS_OF: dict[str, list[str]] = {DIGITS: [], FASHION_MNIST: ["train", "test"]}
"""Of these."""
TFDS = "tfds:"


def modules_of(data: str) -> tuple[str, ...]:
    """The modules of the extra `data` without which a source cannot be opened."""
    return ("sklearn",) if data == DIGITS else ()


def has_name(data: str) -> bool:
    """Whether data is named, and no path."""
    return data in BUILT_IN or data.startswith(TFDS)


def is_there(data: str) -> bool:
    """Whether data has a name, or a path that leads to a folder or a table."""
    return has_name(data) or os.path.isdir(data) or (is_table(data) and os.path.exists(data))


def is_same_data(data: str, other: str) -> bool:
    """Whether two names are of one source, or lead to one place."""
    return os.path.realpath(data) == os.path.realpath(other)


def check_data(argument: str, data: str, layout: str = "auto", split: str | None = None) -> list[str] | None:
    """Refuses what is neither the name of a source nor a folder or a table, and a folder that may be read in two ways.

    Args:
        argument: what the data was given as.
        data: what was given.
        layout: what the folders of a folder of images are; see `folders.split_folders`.
        split: of a folder or a table, that has to be there.

    Returns:
        The names of its splits, none of a folder of classes; None where that takes more than a look.

    Raises:
        ValueError: neither, the layout does not fit, or there is no such split.
    """
    check_choice("layout", layout, LAYOUTS)
    if not is_there(data):
        named = ", ".join(map(repr, BUILT_IN))
        seen_from = "" if os.path.isabs(data) else f" in {shown(os.getcwd())!r}, where this was started"
        raise ValueError(
            f"{argument}={data!r} is not a folder{seen_from}; expected {named}, '{TFDS}NAME', a table ending in .csv, "
            f"a folder of records, or {EXPECTED}"
        )
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
        raise ValueError(f"layout={layout!r} is of a folder of images, and {argument}={data!r} is none")
    return SPLITS_OF.get(data)
