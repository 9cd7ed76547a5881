"""Preparation of a run on cached features: computes them, and starts the model behind its frozen part."""

import shlex
from pathlib import Path

from absl import logging

from polynet_keras.basics.holding import make_folder
from polynet_keras.basics.interrupts import interrupts_kept
from polynet_keras.checkpoints.callback import Checkpoints
from polynet_keras.cluster.agreement import fail_together
from polynet_keras.cluster.shared_folder import check_shared_folder
from polynet_keras.cluster.workers import Strategy, is_chief
from polynet_keras.data.examples import Source
from polynet_keras.data.protocol import Preprocessing
from polynet_keras.engine.network import Network
from polynet_keras.training.features.computing import RunFeatures, run_features
from polynet_keras.training.features.frozen import end_of_frozen
from polynet_keras.training.recipes.recipe import Recipe
from polynet_keras.training.runs.execution import Execution
from polynet_keras.training.runs.folder import FEATURES_FOLDER, has_checkpoints, has_features
from polynet_keras.training.runs.resuming import resuming


def begin_behind(
    model: Network,
    path: Path,
    recipe: Recipe,
    source: Source,
    preprocessing: Preprocessing,
    checkpoints: Checkpoints,
    execution: Execution,
    strategy: Strategy | None,
) -> RunFeatures:
    """Computes the features of all images, and makes the model start behind its frozen part.

    Args:
        model: model of the run, compiled.
        path: the run folder.
        recipe: recipe of the run.
        source: source of its images.
        preprocessing: preprocessing for evaluation.
        checkpoints: checkpoints of the run.
        execution: execution of the run.
        strategy: strategy of the model.

    Raises:
        ValueError: as `run_features`; or the folder cannot be made, or differs between workers.
    """
    folder = path / FEATURES_FOLDER
    if execution.features_dir is not None:
        folder = _shared(Path(execution.features_dir), strategy)
    elif is_chief(strategy) and has_checkpoints(path) and not has_features(folder):
        logging.warning(
            "%s has no features, and all of them are computed again: if the run began with --features_dir, interrupt "
            "it, and pass the same --features_dir again",
            folder,
        )
    checkpoints.reload(model)  # a resumed run has its initial weights there
    try:
        with interrupts_kept():
            features = run_features(model, recipe, source, preprocessing, folder, strategy)
    except KeyboardInterrupt:
        if has_features(folder):
            if execution.features_dir is None:
                command = resuming(path, execution, strategy)
            else:  # without an epoch, the run folder is removed
                command = f"the same command with {shlex.quote(f'--features_dir={folder}')}"
            logging.warning("interrupted: %s resumes with the features so far", command)
        raise
    model.begin_at(end_of_frozen(model, recipe.start.frozen_through or ""))
    return features


def _shared(folder: Path, strategy: Strategy | None) -> Path:
    failure = None
    try:
        if is_chief(strategy):
            make_folder("features_dir", folder)
    except ValueError as error:
        failure = error
    fail_together(strategy, failure)
    check_shared_folder(folder, strategy, "folder of features")
    return folder
