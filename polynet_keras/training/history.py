"""The history of a run: a row of losses, metrics and rates for each epoch, as `keras.callbacks.CSVLogger` writes it."""

import csv
import io
from pathlib import Path

from polynet_keras.data.files import written_whole


def read_history(path: Path) -> list[dict[str, str]]:
    """A row for each epoch, with the epoch's number from 0 in `"epoch"`; empty if the file is not there.

    Raises:
        ValueError: it is no history; the message names the file and the line.
    """
    try:
        text = path.read_bytes().decode()
    except FileNotFoundError:
        return []
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} cannot be read: {getattr(error, 'strerror', error)}") from None
    whole = text[: text.rfind("\n") + 1]  # a line is cut off where the disk was full
    reader = csv.DictReader(io.StringIO(whole, newline=""))
    rows: list[dict[str, str]] = []
    try:
        for row in reader:
            goes_on = not rows or int(row["epoch"]) == int(rows[-1]["epoch"]) + 1
            if int(row["epoch"]) < 0 or not goes_on or None in row or None in row.values():
                raise ValueError
            rows.append(row)
    except (ValueError, TypeError, KeyError, csv.Error):
        raise ValueError(
            f"{path}: line {reader.line_num} does not follow the epoch before it: two runs have written to this file, "
            "or it was edited. Move the file away: the run goes on, and its curves lack the epochs so far"
        ) from None
    return rows


def forget_epochs(path: Path, epochs: int) -> None:
    """Leaves the epochs before this one: those after them are about to run again."""
    kept = [row for row in read_history(path) if int(row["epoch"]) < epochs]
    if not path.exists():
        return
    with written_whole(path) as partial, open(partial, "w", newline="") as file:
        if kept:  # else the logger begins with its own header
            writer = csv.DictWriter(file, list(kept[0]))
            writer.writeheader()
            writer.writerows(kept)
