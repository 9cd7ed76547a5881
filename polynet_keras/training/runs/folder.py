"""The folder that a training run leaves, and where the next one goes."""

import contextlib
import itertools
import os
import re
import time
from collections.abc import Collection, Iterator
from pathlib import Path

from polynet_keras.basics.holding import holding, make_folder
from polynet_keras.basics.names import is_escaped
from polynet_keras.pretrained.model_card import CARD_FILE, MODEL_FILE
from polynet_keras.training.recipes.recipe import Recipe
from polynet_keras.training.runs.history import read_history

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
FILES = (RECIPE_FILE, HISTORY_FILE, LAST_GOOD_FILE, CURVES_FILE, MODEL_FILE, CARD_FILE)
FOLDERS = (TENSORBOARD_FOLDER, SAMPLES_FOLDER, CHECKPOINTS_FOLDER)
"""What a run writes."""
CHECKPOINT_NAME = re.compile(r"checkpoint-\d+\.(index|data-\d+-of-\d+)(\.tempstate\d+)?")
JOB_OUTPUT = re.compile(r"nohup\.out|.*\.(log|out|err)|.*\.[oe]\d+", re.DOTALL)
"""Names that shells, Slurm and PBS give to what a job prints."""
NAME_BYTES = 200
"""Of the data's name in the name of a run folder; file systems take 255 in all."""


@contextlib.contextmanager
def run_folder(folder: str | os.PathLike | None, recipe: Recipe) -> Iterator[Path]:
    """The folder of a run that begins, or of an unfinished run of the same recipe that goes on; held by this process.

    An error before an epoch is done or a checkpoint is written removes what the run has written since, so that the same
    command can run again.

    Args:
        folder: the folder; by default a new one in `runs/`, named after the data and the time.
        recipe: of the run; saved in a new folder.

    Raises:
        ValueError: the folder cannot be made or written to, is held by another process, is finished or of another
            recipe, or holds anything that no run writes.
    """
    if folder:
        path = Path(folder)
        is_new = make_folder("run_dir", path)
    else:
        path, is_new = new_run_folder(recipe.data), True
    try:
        with holding("run_dir", path) as hold:
            before = _files_of_runs(path)
            _open(path, recipe)
            try:
                yield path
            except (Exception, KeyboardInterrupt):
                if not (hold.is_lost or _has_epochs(path) or has_checkpoints(path)):
                    _remove(path, _files_of_runs(path) - before)
                raise
    finally:
        if is_new:
            with contextlib.suppress(OSError):  # what is not empty stays
                path.rmdir()


def _open(path: Path, recipe: Recipe) -> None:
    """Saves the recipe in an empty folder, or sees that the folder is of an unfinished run of this recipe."""
    name = f"run_dir={os.fspath(path)!r}"
    if not (path / RECIPE_FILE).is_file():
        check_holds_only("run_dir", path, ())
        try:
            recipe.save(path / RECIPE_FILE)
        except OSError as error:
            raise ValueError(f"{name} cannot be written: {error.strerror}") from None
        return
    differences = recipe.differences(Recipe.load(path / RECIPE_FILE))
    if differences:
        further = f"; --weights={path} starts from its weights" if is_finished(path) else ""
        raise ValueError(
            f"{name} holds a run of another recipe ({'; '.join(differences)}); name a new folder, no run overwrites "
            f"another{further}"
        )
    if is_finished(path):
        raise ValueError(f"{name} holds a finished run of this recipe; name a new folder")
    check_holds_only("run_dir", path, (*FILES, *FOLDERS))
    read_history(path / HISTORY_FILE)


def is_finished(folder: str | os.PathLike) -> bool:
    """Whether the folder's run is done: its card is what a run writes last."""
    return Path(folder, CARD_FILE).is_file()


def has_checkpoints(folder: Path) -> bool:
    """Whether the folder's run was saved, and can go on."""
    return any((folder / CHECKPOINTS_FOLDER).glob("*.index"))


def _has_epochs(path: Path) -> bool:
    try:
        return bool(read_history(path / HISTORY_FILE))
    except ValueError:
        return True  # whatever it holds, it is kept


def check_holds_only(argument: str, path: Path, names: Collection[str]) -> None:
    """Refuses a folder with anything but hidden files and what may be there.

    Raises:
        ValueError: with what is there.
    """
    others = sorted(child.name for child in path.iterdir() if child.name not in names and child.name[0] != ".")
    if others:
        shown = ", ".join(map(repr, others[:5])) + (f" and {len(others) - 5} more" if len(others) > 5 else "")
        what = "holds other things than a run" if names else "is not empty"
        cure = "name a new folder, nothing is overwritten or removed"
        if all(JOB_OUTPUT.fullmatch(name) for name in others):
            cure = (
                "these look like the output of a job: let it go to a file elsewhere (`> train.log`, Slurm's --output, "
                f"--log_dir of `polynet launch`) and move these there, or {cure}"
            )
        raise ValueError(f"{argument}={os.fspath(path)!r} {what}: {shown}; {cure}")


def remove_checkpoints(path: Path) -> None:
    """Removes those of a run that is done."""
    _remove(path, _checkpoint_files(path))


def _files_of_runs(path: Path) -> set[Path]:
    """What is in a folder and has a name that this process may have given, before the first epoch is done."""
    files = {path / name for name in FILES if (path / name).is_file()}
    logs = path / TENSORBOARD_FOLDER
    if not logs.is_symlink():
        files.update(logs.glob(f"*/events.out.tfevents.*.{os.getpid()}.*"))
    return files | _checkpoint_files(path)


def _checkpoint_files(path: Path) -> set[Path]:
    folder = path / CHECKPOINTS_FOLDER
    if folder.is_symlink() or not folder.is_dir():
        return set()
    return {file for file in folder.iterdir() if CHECKPOINT_NAME.fullmatch(file.name)}


def _remove(path: Path, files: set[Path]) -> None:
    """Removes files, and those of a run's folders that are empty then."""
    for file in files:
        with contextlib.suppress(OSError):
            file.unlink()
    for folder in (
        path / TENSORBOARD_FOLDER / "train",
        path / TENSORBOARD_FOLDER / "validation",
        *map(path.joinpath, FOLDERS),
    ):
        with contextlib.suppress(OSError):
            folder.rmdir()


def new_run_folder(data: str) -> Path:
    """Makes a folder in `runs/`, named after a recipe's data and the time.

    Raises:
        ValueError: it cannot be made.
    """
    name = "".join("_" if is_escaped(letter) else letter for letter in Path(data).resolve().name).lstrip(".") or "data"
    name = name.encode()[:NAME_BYTES].decode(errors="ignore")
    name += time.strftime("-%Y%m%d-%H%M%S")
    make_folder("run_dir", Path(RUNS))
    for number in itertools.count(1):
        path = Path(RUNS, name if number == 1 else f"{name}-{number}")
        try:
            path.mkdir()
        except FileExistsError:
            continue  # of several runs that begin in one second
        except OSError as error:
            raise ValueError(f"run_dir={os.fspath(path)!r} cannot be written: {error.strerror}") from None
        return path
    raise AssertionError


def latest_run_folder() -> Path:
    """The newest folder in `runs/` that holds a model and its card.

    Raises:
        ValueError: there is none.
    """
    cards = [card for card in Path(RUNS).glob(f"*/{CARD_FILE}") if card.with_name(MODEL_FILE).is_file()]
    if not cards:
        raise ValueError(f"no trained model in {RUNS}/; run `polynet train` first, or name a run folder with --run_dir")
    return max(cards, key=lambda card: card.stat().st_mtime).parent
