"""The folder of a training run, and the place of a new one."""

import contextlib
import itertools
import os
import re
import time
from collections.abc import Collection, Iterator
from pathlib import Path

from polynet_keras.basics.holding import holding, make_folder
from polynet_keras.basics.names import is_escaped, listed
from polynet_keras.data.source_names import is_there
from polynet_keras.pretrained.model_card import CARD_FILE, card_file
from polynet_keras.pretrained.model_source import BEST_FILE, MODEL_FILE, RECIPE_FILE, RUNS
from polynet_keras.training.recipes.recipe import Recipe
from polynet_keras.training.runs.history import read_history

HISTORY_FILE = "history.csv"
LAST_GOOD_FILE = "last_good.keras"
"""The last saved network of a run that diverged."""
CURVES_FILE = "curves.png"
TENSORBOARD_FOLDER = "tensorboard"
SAMPLES_FOLDER = "samples"
CHECKPOINTS_FOLDER = "checkpoints"
"""The folder of checkpoints, which exists until the run is done."""
FILES = (
    RECIPE_FILE,
    HISTORY_FILE,
    BEST_FILE,
    card_file(BEST_FILE).name,
    LAST_GOOD_FILE,
    CURVES_FILE,
    MODEL_FILE,
    CARD_FILE,
)
FEATURES_FOLDER = "features"
"""The frozen part's output, if it is cached; you may remove the folder when the run is done."""
FOLDERS = (TENSORBOARD_FOLDER, SAMPLES_FOLDER, CHECKPOINTS_FOLDER, FEATURES_FOLDER)
"""The folders that a run writes."""
CHECKPOINT_NAME = re.compile(r"checkpoint-\d+\.(index|data-\d+-of-\d+)(\.tempstate\d+)?")
JOB_OUTPUT = re.compile(r"nohup\.out|.*\.(log|out|err)|.*\.[oe]\d+", re.DOTALL)
"""Names that shells, Slurm and PBS give to a job's output."""
NAME_BYTES = 200
"""Bytes of the data's name in the name of a run folder; file systems allow 255 in all."""
NO_COMMON_FOLDER = "several workers need the same run folder: name one with --run_dir, on storage they all see"


@contextlib.contextmanager
def run_folder(folder: str | os.PathLike | None, recipe: Recipe) -> Iterator[Path]:
    """Opens the folder of a new run, or of an unfinished run of the same recipe, and locks it for this process.

    An error before an epoch is done, a checkpoint is written or features are computed removes the files of this run so
    far, so that the same command can run again.

    Args:
        folder: the folder; by default a new one in `runs/`, named after the data and the time.
        recipe: recipe of the run; saved in a new folder.

    Raises:
        ValueError: the folder cannot be made or written to, another process has locked it, it belongs to a finished run
            or another recipe, or it holds files that no run writes.
    """
    runs_are_new = False
    if folder:
        path = Path(folder)
        is_new = make_folder("run_dir", path)
    else:
        runs_are_new = not os.path.lexists(RUNS)
        path, is_new = new_run_folder(recipe.data), True
    try:
        with holding("run_dir", path) as hold:
            before = _files_of_runs(path)
            _open(path, recipe)
            try:
                yield path
            except (Exception, KeyboardInterrupt):
                if not (
                    hold.is_lost or _has_epochs(path) or has_checkpoints(path) or has_features(path / FEATURES_FOLDER)
                ):
                    _remove(path, _files_of_runs(path) - before)
                raise
    finally:
        if is_new:
            with contextlib.suppress(OSError):  # what is not empty stays
                path.rmdir()
                if runs_are_new:
                    path.parent.rmdir()


def _open(path: Path, recipe: Recipe) -> None:
    """Saves the recipe in an empty folder, or checks that the folder belongs to an unfinished run of this recipe."""
    check_goes_on(path, recipe)
    if not (path / RECIPE_FILE).is_file():
        try:
            recipe.save(path / RECIPE_FILE)
        except OSError as error:
            raise ValueError(f"run_dir={os.fspath(path)!r} cannot be written: {error.strerror}") from None


def check_goes_on(path: Path, recipe: Recipe) -> None:
    """Refuses a folder that is neither empty nor of an unfinished run of this recipe.

    Raises:
        ValueError: the message says what the folder holds.
    """
    name = f"run_dir={os.fspath(path)!r}"
    if not (path / RECIPE_FILE).is_file():
        check_holds_only("run_dir", path, ())
        return
    differences = recipe.differences(Recipe.load(path / RECIPE_FILE))
    if differences:
        further = f"; --weights={path} starts from its weights" if is_finished(path) else ""
        raise ValueError(
            f"{name} holds a run of another recipe ({'; '.join(differences)}); name a new folder, because no run "
            f"overwrites another{further}"
        )
    if is_finished(path):
        raise ValueError(
            f"{name} holds a finished run of this recipe; name a new folder, where --weights={path} starts from its "
            "weights"
        )
    check_holds_only("run_dir", path, (*FILES, *FOLDERS))
    read_history(path / HISTORY_FILE)


def check_data_is_there(path: Path, recipe: Recipe, otherwise: str = "") -> None:
    """Checks that a run's data exist from the current folder, if its recipe has a relative path.

    Args:
        path: path of the recipe's file.
        recipe: recipe of the run.
        otherwise: an alternative, for the message.

    Raises:
        ValueError: the data do not exist; the message says to which folder the path is relative.
    """
    if os.path.isabs(recipe.data) or is_there(recipe.data):
        return
    also = f", or {otherwise}" if otherwise else ""
    raise ValueError(
        f"{path} has data={recipe.data!r}, a path from the folder in which that run was started; from here, "
        f"{os.getcwd()!r}, it leads nowhere; start the command in that folder{also}"
    )


def is_finished(folder: str | os.PathLike) -> bool:
    """Whether the folder's run is done: a run writes its card last."""
    return Path(folder, CARD_FILE).is_file()


def has_checkpoints(folder: Path) -> bool:
    """Whether the folder's run was saved, and can be resumed."""
    return any((folder / CHECKPOINTS_FOLDER).glob("*.index"))


def _has_epochs(path: Path) -> bool:
    try:
        return bool(read_history(path / HISTORY_FILE))
    except ValueError:
        return True  # its content is kept


def has_features(folder: Path) -> bool:
    """Whether a folder of features contains any features."""
    return any(folder.glob("*/*.npy"))


def check_holds_only(argument: str, path: Path, names: Collection[str]) -> None:
    """Refuses a folder with anything but hidden files and the allowed names.

    Raises:
        ValueError: the message says what the folder holds.
    """
    others = sorted(child.name for child in path.iterdir() if child.name not in names and child.name[0] != ".")
    if others:
        what = "holds other things than a run" if names else "is not empty"
        cure = "name a new folder, nothing is overwritten or removed"
        if all(JOB_OUTPUT.fullmatch(name) for name in others):
            cure = (
                "these look like the output of a job: let it go to a file elsewhere (`> train.log`, Slurm's --output, "
                f"--log_dir of `polynet launch`) and move these there, or {cure}"
            )
        raise ValueError(f"{argument}={os.fspath(path)!r} {what}: {listed(others)}; {cure}")


def remove_checkpoints(path: Path) -> None:
    """Removes the checkpoints of a run that is done."""
    _remove(path, _checkpoint_files(path))


def _files_of_runs(path: Path) -> set[Path]:
    """Returns the files whose names this process may have given them before the first epoch was done."""
    files = {path / name for name in FILES if (path / name).is_file()}
    logs = path / TENSORBOARD_FOLDER
    if not logs.is_symlink():
        files.update(logs.glob(f"*/events.out.tfevents.*.{os.getpid()}.*"))
    features = path / FEATURES_FOLDER
    if not features.is_symlink():
        files.update(features.glob("*/about.json"))
    return files | _checkpoint_files(path)


def _checkpoint_files(path: Path) -> set[Path]:
    folder = path / CHECKPOINTS_FOLDER
    if folder.is_symlink() or not folder.is_dir():
        return set()
    return {file for file in folder.iterdir() if CHECKPOINT_NAME.fullmatch(file.name)}


def _remove(path: Path, files: set[Path]) -> None:
    """Removes files, and the run's folders that are then empty."""
    for file in files:
        with contextlib.suppress(OSError):
            file.unlink()
    features = path / FEATURES_FOLDER
    for folder in (
        *(() if features.is_symlink() else features.glob("*")),
        path / TENSORBOARD_FOLDER / "train",
        path / TENSORBOARD_FOLDER / "validation",
        *map(path.joinpath, FOLDERS),
    ):
        with contextlib.suppress(OSError):
            folder.rmdir()


def new_run_folder(data: str) -> Path:
    """Makes a folder in `runs/`, named after a recipe's data and the time.

    Raises:
        ValueError: the folder cannot be made.
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
            continue  # several runs began in the same second
        except OSError as error:
            raise ValueError(f"run_dir={os.fspath(path)!r} cannot be written: {error.strerror}") from None
        return path
    raise AssertionError
