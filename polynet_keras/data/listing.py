"""Labelled image files by the folder or the table that names them."""

import os
from collections.abc import Sequence

from polynet_keras.data.folders import list_splits
from polynet_keras.data.labelled_files import LabelledFiles
from polynet_keras.data.tables import is_table, list_table


def list_images(
    data: str | os.PathLike, split: str = "train", class_names: Sequence[str] | None = None, layout: str = "auto"
) -> dict[str, LabelledFiles]:
    """Lists what a folder or a table names, by the split's name.

    Args:
        data: as `list_splits` or `list_table` takes it.
        split: what data without splits is called.
        class_names: by label.
        layout: as `list_splits` takes it.

    Raises:
        ValueError: as `list_splits` and `list_table`; a layout of a table.
    """
    if not is_table(data):
        return list_splits(data, split, class_names, layout)
    if layout != "auto":
        raise ValueError(f"layout={layout!r} is of a folder; data={os.fspath(data)!r} has its splits in a column")
    return list_table(data, split, class_names)
