"""The run, from a recipe to a folder with a trained model and its evaluation."""

import contextlib
import dataclasses
import math
import os
import shutil
import warnings
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from absl import logging

from polynet_keras.basics.names import number_of
from polynet_keras.basics.news import tell
from polynet_keras.basics.stderr_filter import warned
from polynet_keras.checkpoints.callback import Checkpoints
from polynet_keras.cluster.agreement import fail_together, sum_over_workers
from polynet_keras.cluster.cluster import Cluster
from polynet_keras.cluster.shared_folder import check_shared_folder
from polynet_keras.cluster.workers import Strategy, is_chief, scope_of
from polynet_keras.data.decoder_warnings import log_damaged
from polynet_keras.data.examples import Examples, Source
from polynet_keras.data.unreadable import Unreadable, reading
from polynet_keras.models.macs import parameters_text
from polynet_keras.pretrained.model_card import ModelCard
from polynet_keras.pretrained.model_source import BEST_FILE, MODEL_FILE
from polynet_keras.training.recipes.recipe import Recipe
from polynet_keras.training.recipes.teacher import find_teacher, teacher_hash
from polynet_keras.training.runs.best_epoch import BestEpoch
from polynet_keras.training.runs.cached import begin_behind
from polynet_keras.training.runs.curves import plot_curves
from polynet_keras.training.runs.execution import Execution
from polynet_keras.training.runs.fitting import fit
from polynet_keras.training.runs.folder import (
    CHECKPOINTS_FOLDER,
    CURVES_FILE,
    HISTORY_FILE,
    NO_COMMON_FOLDER,
    SAMPLES_FOLDER,
    has_checkpoints,
    is_finished,
    remove_checkpoints,
    run_folder,
)
from polynet_keras.training.runs.history import read_history
from polynet_keras.training.runs.opening import opened, tell_of_data
from polynet_keras.training.runs.preparation import (
    compiled_model,
    held_out_data,
    preprocessing_of,
    steps_of,
    training_data,
)
from polynet_keras.training.runs.resuming import resuming
from polynet_keras.training.runs.samples import held_out_samples
from polynet_keras.training.runs.saving import save_model


@dataclass(frozen=True)
class RunResult:
    """The results of a run.

    Attributes:
        folder: folder of the run.
        card: card of the model, with the held-out counts.
        samples: a few held-out image files for predictions.
    """

    folder: Path
    card: ModelCard
    samples: tuple[str, ...]


def train(
    recipe: Recipe,
    run_dir: str | os.PathLike | None = None,
    execution: Execution | None = None,
    *,
    strict: bool = False,
) -> RunResult:
    """Trains a PolyNet and leaves the model, recipe, history, TensorBoard logs and curves in a run folder.

    The model is that of the last epoch, or of the best one if the data have images that choose it
    (`Recipe.validation_share`). Only this model is evaluated on the held-out images.

    Progress goes to standard error, or to absl's log if it shows information.
    `keras.config.disable_interactive_logging()` turns off what is not in the log.

    If you call it again with the recipe and the folder of an unfinished run, the run continues from its last save.
    Several workers train together, each in its own process that calls this function with the same arguments; the chief
    writes. If nothing was saved yet, an interrupt or an unreadable image leaves no run folder.

    Args:
        recipe: the recipe.
        run_dir: folder of the run: new, empty, or of an unfinished run of this recipe; by default one in `runs/`, named
            after the data and the time. Several workers need a folder that all of them see.
        execution: devices, and how often to save; by default as the environment says, and every ten minutes.
        strict: whether an image file in several splits is an error.

    Raises:
        DivergenceError: the loss is not finite any more. The last saved network is in `last_good.keras`.
        ValueError: the data or the initial weights cannot be read, the folder cannot be written, the extra `data` is
            not installed, or the workers do not do the same thing.
        KeyboardInterrupt: the run was interrupted; it continues from its last save when started again.
        PeerFailure: another worker failed or did not answer in time.
        Preempted: this process or another worker got SIGTERM; the run was saved.

    Examples:
        >>> recipe = Recipe(data=str(photos), structure="1 x [ir] | 1 x [ir] | 1 x [ir]", width=0.1, epochs=1)
        >>> result = train(recipe, folder / "run")
        >>> result.card.class_names, result.card.held_out
        (('cat', 'dog'), 2)
        >>> (folder / "run" / "model.keras").exists()
        True
    """
    execution = execution or Execution()
    if run_dir is None and Cluster.from_environment().is_distributed:
        raise ValueError(NO_COMMON_FOLDER)
    with opened(recipe, execution, goes_on=bool(run_dir and has_checkpoints(Path(run_dir)))) as (source, strategy):
        return _train(recipe, source, run_dir, execution, strategy, strict)


def _train(
    recipe: Recipe,
    source: Source,
    folder: str | os.PathLike | None,
    execution: Execution,
    strategy: Strategy | None,
    strict: bool,
) -> RunResult:
    keras.utils.set_random_seed(recipe.seed)
    chief = is_chief(strategy)
    if folder and _is_finished(folder, execution, strategy):
        check_shared_folder(folder, strategy)  # afterwards it shows what the chief sees
        return RunResult(Path(folder), ModelCard.load(folder), ())
    folder_of_run = run_folder(folder, recipe) if chief else contextlib.nullcontext(Path(folder or ""))
    with folder_of_run as path, warnings.catch_warnings():
        # Keras says so at each end of a validation whose length it does not know; the training data have no end.
        warnings.filterwarnings("ignore", "Your input ran out of data")
        check_shared_folder(path, strategy)
        tell_of_data(recipe, source, strategy, strict)
        return _train_in(path, recipe, source, execution, strategy)


def _is_finished(folder: str | os.PathLike, execution: Execution, strategy: Strategy | None) -> bool:
    """Whether an earlier attempt ended after the run was done.

    The chief decides, because a shared folder may show it to the others later."""
    return sum_over_workers(strategy, int(is_chief(strategy) and execution.attempt > 0 and is_finished(folder))) > 0


def _train_in(path: Path, recipe: Recipe, source: Source, execution: Execution, strategy: Strategy | None) -> RunResult:
    chief = is_chief(strategy)
    preprocessing = preprocessing_of(recipe, source)
    teacher = recipe.regularization.teacher
    taught_by = "" if teacher is None else teacher_hash(find_teacher(teacher))
    checkpoints = Checkpoints(
        path / CHECKPOINTS_FOLDER,
        every_steps=execution.save_every_steps,
        every_minutes=execution.save_every_minutes,
        at_epoch_ends=True,
        skip_data=False,
        fingerprint=recipe.fingerprint + (f", teacher {taught_by}" if taught_by else ""),
        strategy=strategy,
    )
    unread, unread_held_out = Unreadable(recipe.on_error), Unreadable(recipe.on_error)
    model = features = None
    if recipe.start.cache_features:
        model = _model(recipe, source, checkpoints, execution, strategy)
        features = begin_behind(model, path, recipe, source, preprocessing, checkpoints, execution, strategy)
    copies = () if features is None else features.training
    training = training_data(recipe, source, preprocessing, unread, strategy, checkpoints.position.global_step, copies)
    of_held_out = None if features is None else features.held_out
    held_out = held_out_data(recipe, source.held_out, preprocessing, unread_held_out, strategy, of_held_out)
    # Once the model is trained, it is of the last epoch, or of the best.
    card = ModelCard(
        source.class_names,
        preprocessing,
        held_out=0,
        held_out_correct=0,
        structure=recipe.structure,
        width=recipe.width,
        epoch=recipe.epochs,
        training_counts=_counts(source.training),
        teacher_hash=taught_by,
    )
    validation, unread_validation, best = held_out, Unreadable(recipe.on_error), None
    if source.validation is not None:
        of_validation = None if features is None else features.validation
        validation = held_out_data(recipe, source.validation, preprocessing, unread_validation, strategy, of_validation)
        if not _chose_none(path / HISTORY_FILE, checkpoints.position.epoch, strategy):
            images = partial(_readable, source.validation, unread_validation, strategy)
            last_phase = recipe.epochs - recipe.phases[-1].epochs
            best = BestEpoch(path / BEST_FILE, card, images, recipe.patience, last_phase)
        elif chief:
            tell("no best epoch so far: an older version began this run, so its model is the last one")
    model = model or _model(recipe, source, checkpoints, execution, strategy)
    if chief:
        together = "one process" if strategy is None else number_of(strategy.num_replicas_in_sync, "replica")
        if (backend := keras.backend.backend()) != "tensorflow":
            together += f", {backend}"
        tell("%s; %s; run folder %s", parameters_text(model), together, path)
    fail_together(strategy, _no_room(path, model, best is not None) if chief else None)
    with reading(unread, unread_validation, unread_held_out):
        fit(model, recipe, training, len(source.training), validation, path, checkpoints, execution, strategy, best)
    if best is not None and best.epoch is not None:
        best.restore()
        card = best.card
        if chief:
            tell("the model is of epoch %d, which has the best validation accuracy: %.4f", card.epoch, best.accuracy)
    with reading(unread_held_out):
        try:
            accuracy = model.evaluate(held_out, verbose=0)[1]
        except ValueError:  # Keras's, of no batch
            _readable(source.held_out, unread_held_out, strategy)
            raise
    counted = _readable(source.held_out, unread_held_out, strategy)
    card = dataclasses.replace(
        card,
        held_out=counted,
        held_out_correct=round(accuracy * counted),
        held_out_fingerprint=source.held_out.fingerprint,
    )
    unread.log(len(source.training))
    if source.validation is not None:
        unread_validation.log(len(source.validation))
    unread_held_out.log(len(source.held_out))
    some_are_damaged = sum_over_workers(strategy, int(warned()))
    if not chief:
        return RunResult(path, card, ())
    try:
        save_model(model, path / MODEL_FILE)
        try:
            plot_curves(path / HISTORY_FILE, path / CURVES_FILE)
        except ValueError as error:
            logging.warning("the curves were not drawn: %s", error)
        samples = held_out_samples(source, path / SAMPLES_FOLDER, set(unread_held_out.skipped))
        if best is not None:
            best.remove()
        card.save(path)  # last: it says that the run is done
    except OSError as error:
        raise ValueError(
            f"run_dir={os.fspath(path)!r} cannot be written at the end of the training: {error.strerror or error}. "
            f"Correct this; then {resuming(path, execution, strategy)} resumes from the last checkpoint"
        ) from None
    remove_checkpoints(path)
    if some_are_damaged:  # this may take a while; the trained model is already saved
        log_damaged(*source.parts)
    return RunResult(path, card, samples)


def _model(
    recipe: Recipe,
    source: Source,
    checkpoints: Checkpoints,
    execution: Execution,
    strategy: Strategy | None,
) -> keras.Model:
    with scope_of(strategy):
        goes_on = checkpoints.position.global_step > 0
        model = compiled_model(recipe, source, steps_of(recipe, source), goes_on)
        model.gradient_dtype = execution.gradient_dtype
    return model


def _chose_none(history_file: Path, epoch: int, strategy: Strategy | None) -> bool:
    """Whether this run has earlier epochs without a choice of the best one, as runs of older versions have.

    Their history has no column for it, and their checkpoints have no best weights. The chief's reading decides.
    """
    if not is_chief(strategy):
        return sum_over_workers(strategy, 0) > 0
    rows = [row for row in read_history(history_file) if int(row["epoch"]) < epoch]
    return sum_over_workers(strategy, int(bool(rows) and "best_epoch" not in rows[0])) > 0


def _counts(examples: Examples) -> tuple[int, ...]:
    """Returns the number of images of each class; empty if the labels are unknown."""
    if examples.labels is None:
        return ()
    return tuple(np.bincount(examples.labels, minlength=len(examples.class_names)).tolist())


def _readable(examples: Examples, unreadable: Unreadable, strategy: Strategy | None) -> int:
    """Returns how many of the evaluated images were readable, over all workers.

    Raises:
        ValueError: no image was readable.
    """
    readable = len(examples) - sum_over_workers(strategy, len(unreadable.skipped))
    if not readable:
        raise ValueError(f"{examples.name} has no image that can be read")
    return readable


def _no_room(path: Path, model: keras.Model, keeps_best: bool) -> ValueError | None:
    """Returns an early error if the disk has no room for the model, and for the best weights in a checkpoint."""
    needed = sum(math.prod(v.shape) * tf.as_dtype(v.dtype).size for v in model.variables) * (1 + keeps_best)
    what = "a checkpoint of the model with its best weights takes at least" if keeps_best else "the model alone takes"
    free = shutil.disk_usage(path).free
    if free >= needed:
        return None
    return ValueError(
        f"run_dir={os.fspath(path)!r} has {free / 1e6:.1f} MB of free space, and {what} "
        f"{needed / 1e6:.1f} MB: make room, or name a folder on another disk"
    )
