"""What a model's name stands for: a run, a file, an export or a published checkpoint. It is found, and not opened."""

import difflib
import os
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from polynet_keras.basics.names import shown
from polynet_keras.pretrained.model_card import CARD_FILE
from polynet_keras.pretrained.registry import list_published

RUNS = "runs"
"""The folder of runs, in the current directory, that is used when none is named."""
MODEL_FILE = "model.keras"
"""Of a run."""
BEST_FILE = "best.keras"
"""Of a run that chooses its epoch, until it is done: the best model so far, which is then its `model.keras`."""
EXPORT_CARD_FILE = "card.json"
"""Of the folder of an export."""
RECIPE_FILE = "recipe.json"
"""Of a run, from its beginning on."""
NEAR = 3
"""Similar names that an error lists, at most."""


class Kind(StrEnum):
    """Of a model's source."""

    RUN = "a run folder"
    MODEL = "a .keras file"
    WEIGHTS = "a weights file"
    PUBLISHED = "a published checkpoint"
    EXPORT = "an exported folder"


@dataclass(frozen=True)
class ModelSource:
    """Where a model is.

    Attributes:
        kind: what it is.
        name: as it was named.
        path: of a run or an export the folder, else the file; of a published checkpoint its name.
    """

    kind: Kind
    name: str
    path: Path

    @property
    def file(self) -> str:
        """What holds the weights, as `PolyNet(weights=...)` takes it: of a run its `model.keras`."""
        return os.fspath(self.path / MODEL_FILE if self.kind is Kind.RUN else self.path)


def find_model(model: str | os.PathLike, argument: str = "model") -> ModelSource:
    """Finds what a name stands for. A published checkpoint goes before a file of its name: that is `./imagenet`.

    Args:
        model: a run folder (or the `model.keras` in it), a `.keras` file, a weights file, the name of a published
            checkpoint, or an exported folder.
        argument: what to call it in an error.

    Raises:
        ValueError: it is none of these; the message says where it was looked for, and what has a similar name.
    """
    if not isinstance(model, (str, os.PathLike)) or isinstance(model, bytes):
        raise ValueError(f"{argument}={model!r} must be a path, or the name of a published checkpoint")
    name = os.fspath(model)
    if name in list_published():
        return ModelSource(Kind.PUBLISHED, name, Path(name))
    path = Path(name).expanduser()
    if path.name == MODEL_FILE and path.is_file() and (path.parent / RECIPE_FILE).is_file():
        return ModelSource(Kind.RUN, name, path.parent)
    if name and path.is_file():
        return ModelSource(Kind.MODEL if path.suffix == ".keras" else Kind.WEIGHTS, name, path)
    if not name or not path.is_dir():
        raise ValueError(
            f"{argument}='{shown(name)}' is not a file or folder in {shown(Path(path).absolute().parent)}, and no "
            f"published checkpoint ({', '.join(list_published())}){_did_you_mean(name, path, list_published())}"
        )
    if (path / MODEL_FILE).is_file():
        return ModelSource(Kind.RUN, name, path)
    if (path / EXPORT_CARD_FILE).is_file():
        return ModelSource(Kind.EXPORT, name, path)
    cure = "name the folder of a run that was finished, or of an export"
    if (path / RECIPE_FILE).is_file():
        cure = "its run is not finished: `polynet train --run_dir` resumes it"
        if (path / BEST_FILE).is_file():
            cure += f", and {BEST_FILE} in it is its best model so far"
    runs = sorted(file.parent.name for file in path.glob(f"*/{MODEL_FILE}"))
    if runs:
        cure = f"name one of the runs in it, such as {shown(path / runs[0])}"
    raise ValueError(
        f"{argument}='{shown(name)}' is a folder without {MODEL_FILE} (of a run) and {EXPORT_CARD_FILE} (of an "
        f"export); {cure}"
    )


def newest_run() -> Path:
    """The folder in `runs/` whose run has ended last.

    Raises:
        ValueError: there is none.
    """
    cards = [card for card in Path(RUNS).glob(f"*/{CARD_FILE}") if card.with_name(MODEL_FILE).is_file()]
    if not cards:
        raise ValueError(f"no trained model in {RUNS}/; run `polynet train` first, or name a model with --model")
    return max(cards, key=lambda card: card.stat().st_mtime).parent


def _did_you_mean(name: str, path: Path, published: tuple[str, ...]) -> str:
    """Published checkpoints, runs and what lies beside, of a similar name."""
    near = difflib.get_close_matches(name, published, NEAR)
    near += [str(run) for run in _similar(path.name, Path(RUNS))]
    near += [str(beside) for beside in _similar(path.name, path.parent)]
    return f"; did you mean {' or '.join(map(shown, dict.fromkeys(near[:NEAR])))}?" if near else ""


def _similar(name: str, folder: Path) -> list[Path]:
    try:
        names = os.listdir(folder)
    except OSError:
        return []
    return [folder / one for one in difflib.get_close_matches(name, names, NEAR)]
