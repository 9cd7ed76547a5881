"""The folder that a training run leaves, and where the next one goes."""

import contextlib
import os
import shutil
import time
from pathlib import Path

from polynet_keras.pretrained import CARD_FILE, MODEL_FILE

RUNS = "runs"
"""The folder of runs, in the current directory, that is used when none is named."""

RECIPE_FILE = "recipe.json"
HISTORY_FILE = "history.csv"
CURVES_FILE = "curves.png"
TENSORBOARD_FOLDER = "tensorboard"
SAMPLES_FOLDER = "samples"


def create_run_folder(folder: str | os.PathLike | None, data: str) -> Path:
    """Makes the folder of a new run, before anything is computed.

    Args:
        folder: the folder; by default one in `runs/`, named after the data and the time.
        data: the recipe's data.

    Raises:
        ValueError: the folder cannot be made or written to, or is not empty: no run overwrites another.
    """
    path = Path(folder) if folder else Path(RUNS, f"{Path(data).resolve().name}-{time.strftime('%Y%m%d-%H%M%S')}")
    try:
        path.mkdir(parents=True, exist_ok=True)
        if any(path.iterdir()):
            raise ValueError(f"run_dir={os.fspath(path)!r} is not empty; name a new folder, no run overwrites another")
        probe = path / ".writable"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise ValueError(f"run_dir={os.fspath(path)!r} cannot be written: {error.strerror}") from None
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
