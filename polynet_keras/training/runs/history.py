"""The history of a run: a row of losses, metrics and rates for each epoch, as `keras.callbacks.CSVLogger` writes it."""

import csv
import io
from pathlib import Path

from polynet_keras.basics.files import written_whole


def read_history(path: Path) -> list[dict[str, str]]:
    """Reads a row for each epoch, with the epoch's number from 0 in `"epoch"`; no rows if the file is missing.

    A last line without a line end was truncated, by a full disk for example. It is ignored, because its last number may
    be incomplete.

    Raises:
        ValueError: the file is not a history; the message names the file and the line.
    """
    try:
        text = path.read_bytes().decode()
    except FileNotFoundError:
        return []
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} cannot be read: {getattr(error, 'strerror', error)}") from None
    whole = text[: text.rfind("\n") + 1]
    last = text[len(whole) :]
    if last.endswith("\r"):  # of an end of two characters, as the logger writes it, the first is enough
        whole += last
    reader = csv.DictReader(io.StringIO(whole, newline=""))
    rows: list[dict[str, str]] = []
    try:
        for row in reader:
            if fault := _fault(row, rows):
                raise ValueError(fault)
            rows.append(row)
    except (ValueError, csv.Error) as error:
        raise ValueError(
            f"{path}: line {reader.line_num} {error}. A full disk, an editor or two runs in one folder can leave it "
            "so. Correct the line, or move the file away: the run resumes, but its curves lack the epochs so far"
        ) from None
    return rows


def _fault(row: dict[str, str], before: list[dict[str, str]]) -> str | None:
    """Returns the fault of a row, as words that follow the number of its line; None if there is none."""
    if "epoch" not in row:
        return "is below a header without the column 'epoch'"
    if None in row or None in row.values():
        return "has more or fewer values than the header has columns"
    number = row["epoch"]
    if not (number.isascii() and number.isdecimal()):
        return f"has {number!r} where the number of an epoch belongs"
    if before and int(number) <= int(before[-1]["epoch"]):
        return f"is of epoch {number}, the one before it of epoch {before[-1]['epoch']}"
    return None


def forget_epochs(path: Path, epochs: int) -> None:
    """Keeps the epochs before this one, and removes the later ones, which are about to run again."""
    kept = [row for row in read_history(path) if int(row["epoch"]) < epochs]
    if not path.exists():
        return
    with written_whole(path) as partial, open(partial, "w", newline="") as file:
        if kept:  # else the logger begins with its own header
            writer = csv.DictWriter(file, list(kept[0]))
            writer.writeheader()
            writer.writerows(kept)
