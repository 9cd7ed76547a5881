"""Lists labelled image files from a folder or a table."""

import os
from collections.abc import Sequence

from polynet_keras.data.folders import list_splits
from polynet_keras.data.labelled_files import LabelledFiles
from polynet_keras.data.tables import is_table, list_table


def list_images(
    data: str | os.PathLike, split: str = "train", class_names: Sequence[str] | None = None, layout: str = "auto"
) -> dict[str, LabelledFiles]:
    """Lists the images of a folder or a table, by the split's name.

    Args:
        data: as in `list_splits` or `list_table`.
        split: name for data without splits.
        class_names: names by label.
        layout: as in `list_splits`.

    Raises:
        ValueError: as `list_splits` and `list_table`; or a table has a layout.
    """
    if not is_table(data):
        return list_splits(data, split, class_names, layout)
    if layout != "auto":
        raise ValueError(f"layout={layout!r} is for a folder; data={os.fspath(data)!r} has its splits in a column")
    return list_table(data, split, class_names)
