"""Tables of labelled image files: CSV with the columns `path`, `label` and, if there are splits, `split`."""

import contextlib
import csv
import io
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from absl import logging

from polynet_keras.basics.files import check_regular, open_regular
from polynet_keras.basics.names import check_class_names, listed, number_of, quoted, shown
from polynet_keras.data.labelled_files import LabelledFiles, check_distinct
from polynet_keras.data.splits import SPELLINGS, check_spellings, in_order, split_of

SUFFIX = ".csv"
COLUMNS = ("path", "label")
SPLIT = "split"
EXPECTED = "a table begins with the line path,label or path,label,split"
OTHERS = ((";", "semicolons"), ("\t", "tabs"))
"""What spreadsheets write in place of commas."""
CHECKED_BYTES = 1 << 20
"""Most bytes of a table that is read fully before TensorFlow is imported: 30,000 images, in a fifth of a second."""
CSV_FIELD = 1 << 16
"""Most characters of a field, so that an unclosed quote does not swallow the whole file."""


def is_table(data: str | os.PathLike) -> bool:
    """Whether `data` is the name of a table."""
    return os.fspath(data).lower().endswith(SUFFIX) and not os.path.isdir(data)


def list_table(
    table: str | os.PathLike, split: str = "train", class_names: Sequence[str] | None = None
) -> dict[str, LabelledFiles]:
    """Lists the images of a CSV file.

    The first line names the columns `path`, `label` and, if there are splits, `split`, in any order; other columns are
    ignored, and the log says so. Paths are relative to the table's folder, or absolute. The encoding is UTF-8, with or
    without a byte order mark; fields are separated by commas and quoted as in pandas and spreadsheets.

    Args:
        table: the file.
        split: name for the images of a table without splits.
        class_names: names by label; by default the sorted labels of the table.

    Returns:
        The images by the split's name, sorted by label and path: the order of the rows does not matter.

    Raises:
        ValueError: the table cannot be read, lacks a column, or has a row with an empty, unknown or repeated entry, or
            with a missing file; there are fewer than two classes, or the names of two nearly agree.
    """
    images, unused = _listed(Path(table), split, class_names)
    if unused:
        is_not = "a column is not used" if len(unused) == 1 else "columns are not used"
        logging.warning("data=%r: %s: %s", os.fspath(table), is_not, listed(unused))
    return images


def check_table(table: str | os.PathLike, split: str) -> list[str]:
    """Checks a table as `list_table` does: all of it up to `CHECKED_BYTES`, only the header of a larger one.

    Returns:
        Its splits; none for a larger table.

    Raises:
        ValueError: as `list_table`.
    """
    path = Path(table)
    if path.exists() and path.stat().st_size <= CHECKED_BYTES:
        return list(_listed(path, split)[0])
    with _reading(path, _named(path)) as reader:
        _header(reader, _named(path))
    return []


def _named(path: Path) -> str:
    return f"data={str(path)!r}"


def _listed(
    path: Path, split: str, class_names: Sequence[str] | None = None
) -> tuple[dict[str, LabelledFiles], list[str]]:
    """Returns the result of `list_table`, and the unused columns."""
    name = _named(path)
    with _reading(path, name) as reader:
        header = _header(reader, name)
        rows = _read(reader, header, os.fspath(path.parent), name)
    unused = [column or "(no name)" for column in header if column not in (*COLUMNS, SPLIT)]
    labels = sorted({label for of_split in rows.values() for label, _, _ in of_split})
    names = tuple(labels if class_names is None else class_names)
    if class_names is None:
        check_distinct({label: label for label in labels}, name, "write both alike")
    label_of = {label: number for number, label in enumerate(names)}
    unknown = next((label for label in labels if label not in label_of), None)
    if unknown is not None:
        raise ValueError(f"{name} has the label {quoted(unknown)}, which is none of the {len(names)} named classes")
    if len(names) < 2:
        raise ValueError(f"{name} has {number_of(len(names), 'class', 'classes')}; expected two or more")
    check_class_names(names, name)

    def part(of: str) -> LabelledFiles:
        members = sorted((label_of[label], file, size) for label, file, size in rows[of])
        return LabelledFiles(
            path.parent,
            names,
            tuple(file for _, file, _ in members),
            np.array([label for label, _, _ in members], "int64"),
            np.array([size for _, _, size in members], "int64"),
        )

    if "" in rows:
        return {split: part("")}, unused
    check_spellings(sorted(rows), f"{name}, column {SPLIT},")
    return {one.lower(): part(one) for one in in_order(rows)}, unused


@contextlib.contextmanager
def _reading(path: Path, name: str) -> Iterator[Any]:
    """Opens a reader of a CSV file, and reports its errors as errors of the table."""
    try:
        opened = open_regular(path)
    except OSError as error:
        raise ValueError(f"{name} cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise ValueError(f"{name} {error}; {EXPECTED}") from None
    before = csv.field_size_limit(CSV_FIELD)
    with io.TextIOWrapper(opened, "utf-8-sig", newline="") as file:
        reader = csv.reader(file, strict=True, skipinitialspace=True)
        try:
            yield reader
        except csv.Error as error:
            raise ValueError(f"{name}, line {reader.line_num}: {error}") from None
        except UnicodeDecodeError:
            raise ValueError(f"{name} is not UTF-8 text; save it as CSV in UTF-8") from None
        except OSError as error:
            raise ValueError(f"{name} cannot be read: {error.strerror}") from None
        finally:
            csv.field_size_limit(before)


def _header(reader, name: str) -> list[str]:
    header = [column.strip().lower() for column in next(reader, [])]
    for column in COLUMNS:
        if column not in header:
            found = listed(header) if any(header) else "nothing"
            other = next((what for sign, what in OTHERS if header and sign in header[0]), None)
            hint = "" if other is None else f"; commas must separate the columns, not {other}"
            raise ValueError(f"{name} has no column {column}: its first line names {found}; {EXPECTED}{hint}")
    for column in (*COLUMNS, SPLIT):
        if header.count(column) > 1:
            raise ValueError(f"{name} has two columns {column}")
    return header


def _read(reader, header: list[str], folder: str, name: str) -> dict[str, list[tuple[str, str, int]]]:
    """Returns (label, path, bytes) of each image, by split; `""` if the table has no splits."""
    rows: dict[str, list[tuple[str, str, int]]] = {}
    lines: dict[str, int] = {}
    missing: list[str] = []
    for fields in reader:
        if not any(fields):
            continue
        where = f"{name}, line {reader.line_num}"
        if len(fields) != len(header):
            found = f"{number_of(len(fields), 'field')}, and {number_of(len(header), 'column')}"
            few = len(fields) < len(header)
            raise ValueError(f"{where}: {found}; {'separate fields by commas' if few else 'quote what holds a comma'}")
        row = dict(zip(header, (field.strip() for field in fields), strict=True))
        for column in (*COLUMNS, *([SPLIT] if SPLIT in header else [])):
            if not row[column]:
                raise ValueError(f"{where}: its {column} is empty")
        split = row.get(SPLIT, "")
        if split and split_of(split) is None:
            known = ", ".join(one for names in SPELLINGS.values() for one in names)
            raise ValueError(f"{where}: the split {quoted(split)} is none of {known}")
        file = os.path.normpath(os.path.join(folder, row["path"]))
        size = _size(file, where)
        if size is None:
            missing.append(f"line {reader.line_num}: {shown(row['path'])}")
            continue
        if file in lines:
            raise ValueError(f"{where}: {quoted(row['path'])} is in line {lines[file]} already; name each image once")
        lines[file] = reader.line_num
        rows.setdefault(split, []).append((sys.intern(row["label"]), row["path"], size))
    if missing:
        slashes = "; paths are written with /" if "\\" in missing[0] else ""
        raise ValueError(
            f"{name}: {len(missing):,} of {number_of(len(missing) + len(lines), 'file')}"
            f" {'is' if len(missing) == 1 else 'are'} not there, the first in {missing[0]}; "
            f"paths are relative to the table's folder{slashes}"
        )
    if not rows:
        raise ValueError(f"{name} has no row below its first line")
    return rows


def _size(file: str, where: str) -> int | None:
    """Returns the size in bytes; None if there is no such file."""
    if "\0" in file:
        raise ValueError(f"{where}: its path has a null character, which no name can have")
    try:
        status = os.stat(file)
    except OSError:
        return None
    try:
        check_regular(status.st_mode)
    except ValueError as error:
        raise ValueError(f"{where}: {shown(file)} {error}") from None
    return status.st_size
