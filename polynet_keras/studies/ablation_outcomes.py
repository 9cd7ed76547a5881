"""The outcomes of an ablation's runs, and their table, `ablation.csv`."""

import csv
import dataclasses
import os
import typing
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from polynet_keras.basics.files import written_whole
from polynet_keras.basics.names import number_of


@dataclass(frozen=True)
class Outcome:
    """A trained net of the study: a row of `ablation.csv`.

    Attributes:
        variant, stage, same_depth, same_compute, structure: of the `Variant`; the structure in the notation.
        seed: of the run.
        parameters: that are trained.
        macs: multiply-accumulates of one image.
        seconds: of the training steps, from the images a second of the run's processes, without validation and tracing.
        images: that were held out.
        errors: how many of them the net got wrong, at the end of the run.
        learning_rate: that of the run's recipe.
    """

    variant: str
    stage: str
    same_depth: str
    same_compute: str
    structure: str
    seed: int
    parameters: int
    macs: int
    seconds: float
    images: int
    errors: int
    learning_rate: float

    @property
    def error(self) -> float:
        """Share of the held-out images."""
        return self.errors / self.images


def save_outcomes(path: str | os.PathLike, outcomes: Sequence[Outcome]) -> None:
    """Writes a table with a row for each outcome, completely or not at all.

    Examples:
        >>> save_outcomes(folder / "ablation.csv", outcomes)
        >>> (folder / "ablation.csv").read_text().partition(",")[0]
        'variant'
    """
    with written_whole(Path(path)) as partial, open(partial, "w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([field.name for field in dataclasses.fields(Outcome)])
        writer.writerows(dataclasses.astuple(outcome) for outcome in outcomes)


def load_outcomes(path: str | os.PathLike) -> list[Outcome]:
    """Reads the outcomes that a study has written to `ablation.csv`.

    Raises:
        ValueError: the file cannot be read, or it is no such table; the message names the line.

    Examples:
        >>> save_outcomes(folder / "ablation.csv", outcomes)
        >>> load_outcomes(folder / "ablation.csv") == outcomes
        True
    """
    path = Path(path)
    kinds = typing.get_type_hints(Outcome)
    try:
        rows = list(csv.reader(path.read_text("utf-8").splitlines()))
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} cannot be read: {error}") from None
    if not rows or rows[0] != list(kinds):
        raise ValueError(
            f"{path} must begin with the line {','.join(kinds)}; if an older version wrote it, run the same "
            "`polynet ablation` again, which writes it anew"
        )
    outcomes = []
    for number, row in enumerate(rows[1:], 2):
        if len(row) != len(kinds):
            raise ValueError(f"{path}, line {number}: got {number_of(len(row), 'field')}, expected {len(kinds)}")
        values: dict[str, Any] = {}
        for (name, kind), cell in zip(kinds.items(), row, strict=True):
            try:
                values[name] = kind(cell)
            except ValueError:
                expected = "an integer" if kind is int else "a number"
                raise ValueError(f"{path}, line {number}: {name}={cell!r} must be {expected}") from None
        outcomes.append(Outcome(**values))
    return outcomes
