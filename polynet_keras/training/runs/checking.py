"""Checks of a run's requirements, before TensorFlow is imported and anything is written."""

import os
from importlib.metadata import version
from pathlib import Path

from polynet_keras.basics.extras import require_extra
from polynet_keras.basics.holding import make_folder
from polynet_keras.cluster.communication import Communication
from polynet_keras.data.source_names import check_data, modules_of
from polynet_keras.data.splits import validation_split
from polynet_keras.training.recipes.recipe import Recipe
from polynet_keras.training.recipes.teacher import find_teacher
from polynet_keras.training.runs.execution import Execution
from polynet_keras.training.runs.folder import check_goes_on, has_checkpoints

BACKENDS = ("tensorflow", "jax")
"""The backends of Keras on which a run trains."""


def check_backend(backend: str, recipe: Recipe, execution: Execution) -> None:
    """Refuses what a run can do on Keras's TensorFlow backend only.

    Args:
        backend: name of Keras's backend.
        recipe: recipe of the run.
        execution: execution of the run.

    Raises:
        ValueError: the backend is another one, and cannot train, or not like this.
    """
    if backend == "tensorflow":
        return
    if backend not in BACKENDS:
        raise ValueError(
            f"Keras's backend is {backend}, and runs train on {' and '.join(BACKENDS)}: set KERAS_BACKEND={BACKENDS[0]}"
        )
    communication, usual = execution.communication, Communication()
    asked = [
        ("strategy", execution.strategy, ("auto", "none")),
        ("gradient_dtype", execution.gradient_dtype, ("float32",)),
        ("implementation", communication.implementation, (usual.implementation,)),
        ("bytes_per_pack", communication.bytes_per_pack, (usual.bytes_per_pack,)),
        ("timeout_seconds", communication.timeout_seconds, (usual.timeout_seconds,)),
        ("loss", recipe.loss, ("categorical",)),  # Keras keeps no logits there
    ]
    for name, value, possible in asked:
        if value not in possible:
            raise ValueError(
                f"on Keras's backend {backend} a run cannot have {name}={value!r}: leave it out, or set "
                "KERAS_BACKEND=tensorflow"
            )


def check_run(
    recipe: Recipe,
    folder: str | os.PathLike | None = None,
    attempt: int = 0,
    features_dir: str | os.PathLike | None = None,
) -> None:
    """Refuses a run that could not begin.

    Args:
        recipe: recipe of the run.
        folder: folder of the run; a new one by default.
        attempt: as in `Execution`.
        features_dir: as in `Execution`.

    Raises:
        ValueError: packages, the data or the initial weights are missing, or the folder holds something else.
    """
    require_extra("data", "PIL", "matplotlib", "tensorboard", *modules_of(recipe.data))
    check_phases(recipe)
    splits = check_data("data", recipe.data, recipe.layout)
    if splits is not None:
        check_patience(recipe, bool(recipe.validation_share) or validation_split(splits) is not None)
    if recipe.regularization.teacher is not None:
        find_teacher(recipe.regularization.teacher)  # raises if there is none
    path = Path(folder) if folder else None
    if path is None or not has_checkpoints(path):
        _ = recipe.start.file  # raises if there is none
    if path is not None and path.exists():
        make_folder("run_dir", path)  # raises if it is not a folder
        if not attempt:
            check_goes_on(path, recipe)
    if features_dir is not None:
        if not recipe.start.cache_features:
            raise ValueError(
                f"features_dir={os.fspath(features_dir)!r} is for features that are computed once: add "
                "--cache_features=1, or leave it out"
            )
        if os.path.lexists(features_dir):
            make_folder("features_dir", Path(features_dir))  # raises if it is not a folder


def check_phases(recipe: Recipe) -> None:
    """Refuses phases with averages of the weights where Keras would swap them with weights of other layers.

    Older `SwapEMAWeights` assumes that the averages belong to the currently trained weights; the optimizer has averages
    of all weights that the last phase trains.

    Raises:
        ValueError: Keras is older than 3.15.
    """
    installed = version("keras")
    too_old = tuple(map(int, installed.split(".")[:2])) < (3, 15)
    if recipe.start.unfreezing and recipe.optimizer.ema_momentum and too_old:
        raise ValueError(
            f"unfreezing with ema_momentum needs keras 3.15 or later, and {installed} is installed: "
            "pip install 'keras==3.15.*', or leave one of the two out"
        )


def check_dry_run(recipe: Recipe) -> None:
    """Refuses a dry run of cached features: its steps would not contain the frozen part.

    Raises:
        ValueError: the recipe caches features.
    """
    if recipe.start.cache_features:
        raise ValueError(
            f"a dry run makes some steps, and with cache_features={recipe.start.cache_features} the frozen part is not "
            "in them: start the run, which says how long that part takes, or say --cache_features=0"
        )


def check_range_test(recipe: Recipe) -> None:
    """Refuses a range test of cached features: it would train on images that the run does not see.

    Raises:
        ValueError: the features are cached.
    """
    if recipe.start.cache_features:
        raise ValueError(
            f"the range test computes the frozen part in every update, and with cache_features="
            f"{recipe.start.cache_features} the run does not: say --cache_features=0 for the test"
        )


def check_patience(recipe: Recipe, has_validation: bool) -> None:
    """Refuses patience without images that choose the best epoch.

    Args:
        recipe: recipe of the run.
        has_validation: whether there are such images.

    Raises:
        ValueError: the recipe has patience, and there are no such images.
    """
    if recipe.patience is not None and not has_validation:
        raise ValueError(
            f"patience={recipe.patience} needs images to choose the best epoch: use --validation_share=0.1 to take a "
            "tenth of the training images, or give the data a split `val` beside its split `test`"
        )
