"""The table of results: one row per run, with everything that identifies the measurement."""

import csv
import io
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_type_hints

from polynet_keras.basics.files import written_whole
from polynet_keras.basics.holding import locked
from polynet_keras.basics.names import number_of, shown, some_of
from polynet_keras.evaluation.metrics import wilson_interval

DERIVED = ("top1", "top1_low", "top1_high", "top5", "images_per_second")
"""Columns that follow from the others. They are written for people, and not read back."""


@dataclass(frozen=True)
class Result:
    """One evaluation run: a row of `results.csv`.

    Attributes:
        date: end of the run, UTC, ISO 8601.
        model: name of the model.
        structure: its residual units, in the structure notation; `""` for a network of another package.
        weights_hash: see `identity.weights_hash`; for an exported model the hash of its files.
        dataset: name of the dataset and its split.
        fingerprint: fingerprint of the dataset, hexadecimal.
        protocol: the `Preprocessing`, as JSON.
        crops: crops per image.
        pooling: pooling of the crops' scores.
        images: number of evaluated images.
        skipped: number of skipped images, which could not be read.
        top1_hits: images whose class is the best.
        top5_hits: images whose class is among the five best.
        loss: mean cross-entropy, in nats.
        ece: expected calibration error, 0 to 1.
        seconds: time for all images at the pace after the first batch, which includes tracing; 0 if there was only one
            batch, so that no time was measured.
        parameters: of the model, including moving statistics and frozen layers; 0 if unknown, as for an export.
        macs: multiply-accumulates of one forward pass, which is one crop; 0 if unknown.
        python, keras, backend, numpy, polynet_keras: versions.
        device: the CPU, and the accelerators that the backend sees.

    Raises:
        ValueError: the counts are impossible.

    Examples:
        >>> from polynet_keras.data import open_split
        >>> result = evaluate(trained, open_split(photos)).result
        >>> result.images, result.top1_hits, result.top1
        (10, 10, 100.0)
        >>> round(result.top1_low, 1)
        72.2
    """

    date: str
    model: str
    structure: str
    weights_hash: str
    dataset: str
    fingerprint: str
    protocol: str
    crops: int
    pooling: str
    images: int
    skipped: int
    top1_hits: int
    top5_hits: int
    loss: float
    ece: float
    seconds: float
    parameters: int
    macs: int
    python: str
    keras: str
    backend: str
    numpy: str
    polynet_keras: str
    device: str

    def __post_init__(self):
        if not 0 <= self.top1_hits <= self.top5_hits <= self.images or not self.images or not self.seconds >= 0:
            raise ValueError(
                f"top1_hits={self.top1_hits}, top5_hits={self.top5_hits}, images={self.images}, seconds={self.seconds} "
                "must be 0 <= top1_hits <= top5_hits <= images, with an image at least, and seconds >= 0"
            )

    @property
    def top1(self) -> float:
        """Top-1 accuracy in percent, as are the following."""
        return 100 * self.top1_hits / self.images

    @property
    def top1_low(self) -> float:
        """The lower end of the 95 % interval of `top1`; see `metrics.wilson_interval`."""
        return 100 * wilson_interval(self.top1_hits, self.images)[0]

    @property
    def top1_high(self) -> float:
        """The upper end of the 95 % interval of `top1`."""
        return 100 * wilson_interval(self.top1_hits, self.images)[1]

    @property
    def top5(self) -> float:
        return 100 * self.top5_hits / self.images

    @property
    def images_per_second(self) -> float | None:
        """`None` if no time was measured."""
        return self.images / self.seconds if self.seconds else None

    @property
    def speed(self) -> str:
        """`images_per_second` for people."""
        return f"{self.images_per_second:.2f}" if self.images_per_second else "not measured"


FIELDS = get_type_hints(Result)
COLUMNS = (*FIELDS, *DERIVED)


def append(result: Result, path: str | os.PathLike) -> None:
    """Appends a row to a file of results, and makes the file if it is missing. Concurrent processes lose no row.

    If the path is a link, its target gets the row.

    Raises:
        ValueError: the file is not a file of results, or has other columns; it stays unchanged.
    """
    path = Path(os.path.realpath(path))
    with locked(path) as hold:
        text = as_csv([*(read(path) if path.exists() else ()), result])
        with written_whole(path) as partial:
            # A folder's name need not be text: bytes of it that are not are written as such.
            partial.write_bytes(text.encode("utf-8", "backslashreplace"))
            if hold.is_lost:
                raise OSError(f"{shown(path)}: another process has written to it; nothing is added")


def as_csv(results: Sequence[Result]) -> str:
    """Returns results as a CSV table with a header, the format of files of results."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows([getattr(result, column) for column in COLUMNS] for result in results)
    return text.getvalue()


def as_json(result: Result) -> dict[str, Any]:
    """Returns all columns as JSON values: the protocol as an object, and `None` for unknown values."""
    unknown = {name: getattr(result, name) or None for name in ("seconds", "parameters", "macs")}
    return {name: getattr(result, name) for name in COLUMNS} | {"protocol": json.loads(result.protocol)} | unknown


def read(path: str | os.PathLike) -> list[Result]:
    """Reads the rows of a file of results, in order.

    Raises:
        ValueError: the file cannot be read, or has other columns or values than those of `append`; the message names
            it.
    """
    path = os.fspath(path)
    try:
        # A spreadsheet that saved the file began it with a byte order mark.
        with open(path, newline="", encoding="utf-8-sig") as file:
            rows = csv.reader(file)
            _check_columns(path, next(rows, []))
            return [_result(f"{path}, line {rows.line_num}", row) for row in rows if row]
    except FileNotFoundError:
        raise ValueError(f"{path}: no such file; `polynet evaluate --results FILE` writes one") from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        reason = getattr(error, "strerror", None) or error
        raise ValueError(f"{path}: cannot be read as a table of results: {reason}") from None


def _check_columns(path: str, found: Sequence[str]) -> None:
    if tuple(found) != COLUMNS:
        differing = [f"lacks {name}" for name in COLUMNS if name not in found]
        differing += [f"has {name or 'one without a name'}" for name in found if name not in COLUMNS]
        raise ValueError(
            f"{path}: not the columns of this version's results: it {some_of(differing, 5) or 'has another order'}; "
            "name another file for new results, and keep this one"
        )


def _result(where: str, row: Sequence[str]) -> Result:
    if len(row) != len(COLUMNS):
        raise ValueError(f"{where}: {number_of(len(row), 'value')}; there are {len(COLUMNS)} columns")
    try:
        return Result(**{name: kind(value) for (name, kind), value in zip(FIELDS.items(), row, strict=False)})
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None
