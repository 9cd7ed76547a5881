"""The folder of a study: a new one, or one to continue."""

import os
from pathlib import Path

from polynet_keras.training.recipes.recipe import Recipe
from polynet_keras.training.runs.folder import check_holds_only

STUDY_FILE = "study.json"


def check_study(folder: Path, recipe: Recipe) -> None:
    """Refuses a folder that is neither empty nor of a study of the same recipe.

    Args:
        folder: that is there.
        recipe: of all runs, but for structure and seed.

    Raises:
        ValueError: with what is there.
    """
    if not (folder / STUDY_FILE).is_file():
        check_holds_only("output", folder, ())
        return
    differences = recipe.differences(Recipe.load(folder / STUDY_FILE))
    if differences:
        raise ValueError(f"output={os.fspath(folder)!r} holds a study of another recipe ({'; '.join(differences)})")
