"""The folder that a training run leaves, and where the next one goes."""

import contextlib
import os
import shutil
import time
from pathlib import Path

from polynet_keras.data.files import written_whole
from polynet_keras.pretrained import CARD_FILE, MODEL_FILE
from polynet_keras.training.recipe import Recipe

RUNS = "runs"
"""The folder of runs, in the current directory, that is used when none is named."""

RECIPE_FILE = "recipe.json"
HISTORY_FILE = "history.csv"
LAST_GOOD_FILE = "last_good.keras"
"""Of a run that came to nothing: the net as it was saved last."""
CURVES_FILE = "curves.png"
TENSORBOARD_FOLDER = "tensorboard"
SAMPLES_FOLDER = "samples"
CHECKPOINTS_FOLDER = "checkpoints"
"""There until the run is done."""


def open_run_folder(folder: str | os.PathLike | None, recipe: Recipe) -> Path:
    """The folder of a run that begins, or of an unfinished run of the same recipe that goes on.

    Args:
        folder: the folder; by default a new one in `runs/`.
        recipe: of the run; saved in a new folder.

    Raises:
        ValueError: the folder cannot be made or written to, or holds anything else.
    """
    path = Path(folder) if folder else None
    if path is None or not (path / RECIPE_FILE).is_file():
        path = create_run_folder(folder, recipe.data)
        recipe.save(path / RECIPE_FILE)
        return path
    differences = recipe.differences(Recipe.load(path / RECIPE_FILE))
    if differences:
        further = f"; --weights={path} starts from its weights" if is_finished(path) else ""
        raise ValueError(
            f"run_dir={os.fspath(path)!r} holds a run of another recipe ({'; '.join(differences)}); name a new folder, "
            f"no run overwrites another{further}"
        )
    if is_finished(path):
        raise ValueError(f"run_dir={os.fspath(path)!r} holds a finished run of this recipe; name a new folder")
    return path


def is_finished(folder: str | os.PathLike) -> bool:
    """Whether the folder's run is done: its card is what a run writes last."""
    return Path(folder, CARD_FILE).is_file()


def has_checkpoints(folder: Path) -> bool:
    """Whether the folder's run was saved, and can go on."""
    return any((folder / CHECKPOINTS_FOLDER).glob("*.index"))


def epochs_in(history: Path) -> int:
    """The number of epochs in a history so far."""
    return max(0, len(history.read_text().splitlines()) - 1) if history.exists() else 0


def forget_epochs(history: Path, epochs: int) -> None:
    """Leaves so many epochs in a history: those after them are about to run again."""
    if not history.exists():
        return
    lines = history.read_text().splitlines(keepends=True)
    with written_whole(history) as partial:
        partial.write_text("".join(lines[: epochs + 1] if epochs else []))


def default_run_folder(data: str) -> Path:
    """In `runs/`, named after a recipe's data and the time."""
    return Path(RUNS, f"{Path(data).resolve().name}-{time.strftime('%Y%m%d-%H%M%S')}")


def create_run_folder(folder: str | os.PathLike | None, data: str) -> Path:
    """Makes the folder of a new run, before anything is computed.

    Args:
        folder: the folder; by default one in `runs/`, named after the data and the time.
        data: the recipe's data.

    Raises:
        ValueError: the folder cannot be made or written to, or is not empty: no run overwrites another.
    """
    return create_folder("run_dir", Path(folder) if folder else default_run_folder(data))


def create_folder(argument: str, path: Path) -> Path:
    """Makes a folder that was named with an argument.

    Raises:
        ValueError: the folder cannot be made or written to, or is not empty.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        if any(path.iterdir()):
            raise ValueError(f"{argument}={os.fspath(path)!r} is not empty; name a new folder, nothing is overwritten")
        probe = path / ".writable"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise ValueError(f"{argument}={os.fspath(path)!r} cannot be written: {error.strerror}") from None
    return path


def discard_run_folder(path: Path) -> None:
    """Removes what a run that came to nothing wrote into a folder that `create_run_folder` found or made empty."""
    for child in path.iterdir():
        shutil.rmtree(child) if child.is_dir() else child.unlink()
    with contextlib.suppress(OSError):  # the current directory, say, stays
        path.rmdir()


def latest_run_folder() -> Path:
    """The newest folder in `runs/` that holds a model and its card.

    Raises:
        ValueError: there is none.
    """
    cards = [card for card in Path(RUNS).glob(f"*/{CARD_FILE}") if card.with_name(MODEL_FILE).is_file()]
    if not cards:
        raise ValueError(f"no trained model in {RUNS}/; run `polynet train` first, or name a run folder with --run_dir")
    return max(cards, key=lambda card: card.stat().st_mtime).parent
