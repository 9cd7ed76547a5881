"""Tables of predictions: CSV, JSON lines, Parquet. Each row is on disk as soon as it is computed."""

import contextlib
import csv
import json
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from absl import logging

from polynet_keras.basics.extras import require_extra
from polynet_keras.basics.names import shown

if TYPE_CHECKING:
    from polynet_keras.evaluation.predicting import Prediction

SUFFIXES = (".csv", ".jsonl", ".parquet")
ROWS = 10_000
"""Rows in memory at once while writing a Parquet file."""

Row = dict[str, str | float | None]


def check_table(path: str | os.PathLike) -> None:
    """Checks that a table can be started.

    Raises:
        ValueError: the name has another suffix, the extra for Parquet is missing, the table already exists, or rows of
            an unfinished table with this name exist.
    """
    path = Path(path)
    if path.suffix not in SUFFIXES:
        raise ValueError(f"{shown(path)}: a table of predictions must end in {', '.join(SUFFIXES)}")
    if path.suffix == ".parquet":
        require_extra("tables", "pyarrow")
    if os.path.lexists(path):
        raise ValueError(f"{shown(path)} already exists; name a new file, or remove this one")
    partial = _partial(path)
    if os.path.lexists(partial):
        raise ValueError(f"{shown(partial)} exists: the rows of an incomplete table; move it away or remove it")


@contextlib.contextmanager
def prediction_table(path: str | os.PathLike, top: int) -> Iterator[Callable[["Prediction"], None]]:
    """Opens a table that appears only when it is complete; call the function that it yields with each prediction.

    Until then the rows are in a file beside it, `out.partial.csv` for `out.csv`; those of a `.parquet` are JSON lines.
    If the work ends early, this file stays, and the log says so.

    The columns are `path`, `class_1`, `probability_1`, and so on, and `error`. Missing values are empty, or null.
    Probabilities have seven digits. A byte of a path that is not UTF-8 is written as `\\xe9`.

    Args:
        path: path of the table, `.csv`, `.jsonl` or `.parquet`.
        top: number of classes in each row.

    Raises:
        ValueError: as `check_table`.
        OSError: the table cannot be written.
    """
    path = Path(path)
    check_table(path)
    partial = _partial(path)
    columns = ["path", *(f"{what}_{i}" for i in range(1, top + 1) for what in ("class", "probability")), "error"]
    written = 0
    try:
        # "x": the second of two processes that write one table fails. A line is on the disk when it ends.
        file = open(partial, "x", encoding="utf-8", newline="", buffering=1)  # noqa: SIM115 - below
    except FileExistsError:
        check_table(path)
        raise
    try:
        with file:
            if partial.suffix == ".csv":
                table = csv.DictWriter(file, columns, lineterminator="\n")
                table.writeheader()

            def write(prediction: "Prediction") -> None:
                nonlocal written
                row = dict.fromkeys(columns) | _row(prediction)
                if partial.suffix == ".csv":
                    table.writerow(row)
                else:
                    file.write(json.dumps(row, ensure_ascii=False) + "\n")
                written += 1

            yield write
        if path.suffix == ".parquet":
            with tempfile.TemporaryDirectory(prefix=".polynet-", dir=path.parent) as folder:
                whole = Path(folder, path.name)
                _write_parquet(partial, whole, columns)
                _move_to_new(whole, path)
            partial.unlink()
        else:
            _move_to_new(partial, path)
    except BaseException:
        if written:
            rows = "row is" if written == 1 else f"{written:,} rows are"
            logging.warning("%s is incomplete: the first %s in %s", shown(path), rows, shown(partial))
        else:
            partial.unlink(missing_ok=True)
        raise


def _move_to_new(source: Path, target: Path) -> None:
    """Renames a file, unless another file has the new name by now."""
    try:
        os.link(source, target)
        source.unlink()
    except OSError:
        if os.path.lexists(target):
            raise ValueError(f"another process has written {shown(target)}, which is not changed") from None
        os.replace(source, target)  # a file system without hard links


def _partial(path: Path) -> Path:
    return path.with_name(f"{path.stem}.partial{'.jsonl' if path.suffix == '.parquet' else path.suffix}")


def _row(prediction: "Prediction") -> Row:
    text = prediction.image.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    row: Row = {"path": text, "error": prediction.error}
    for i, (name, probability) in enumerate(prediction.classes, 1):
        row |= {f"class_{i}": name, f"probability_{i}": float(f"{probability:.7g}")}
    return row


def _write_parquet(source: Path, target: Path, columns: Sequence[str]) -> None:
    import pyarrow
    from pyarrow import parquet

    # Explicit types, not guessed ones: a class may be called 007.
    types = {column: pyarrow.float64() if column.startswith("probability") else pyarrow.string() for column in columns}
    schema = pyarrow.schema(types.items())
    with open(source, encoding="utf-8") as lines, parquet.ParquetWriter(target, schema) as table:
        while rows := [json.loads(line) for line in islice(lines, ROWS)]:
            table.write_table(pyarrow.Table.from_pylist(rows, schema))
