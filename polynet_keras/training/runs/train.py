"""The run: from a recipe to a folder with a trained model and what is needed to judge it and to use it."""

import contextlib
import math
import os
import shutil
import warnings
import zlib
from dataclasses import dataclass
from pathlib import Path

import keras
import tensorflow as tf
from absl import logging

from polynet_keras.basics.extras import require_extra
from polynet_keras.basics.files import file_hash, written_whole
from polynet_keras.basics.stderr_filter import warned
from polynet_keras.checkpoints.callback import Checkpoints
from polynet_keras.cluster.agreement import fail_together, sum_over_workers
from polynet_keras.cluster.cluster import Cluster
from polynet_keras.cluster.failures import PeerFailure, peer_failures
from polynet_keras.cluster.rendezvous import MissingWorkerError
from polynet_keras.cluster.shared_folder import check_shared_folder
from polynet_keras.cluster.strategies import open_strategy
from polynet_keras.cluster.workers import is_chief
from polynet_keras.data.decoder_warnings import log_damaged
from polynet_keras.data.decoding import Unreadable
from polynet_keras.data.examples import Source
from polynet_keras.data.pipeline import reading
from polynet_keras.data.sources import open_source
from polynet_keras.pretrained.model_card import MODEL_FILE, ModelCard
from polynet_keras.training.recipes.recipe import Recipe
from polynet_keras.training.runs.curves import plot_curves
from polynet_keras.training.runs.execution import Execution
from polynet_keras.training.runs.fitting import fit
from polynet_keras.training.runs.folder import (
    CHECKPOINTS_FOLDER,
    CURVES_FILE,
    HISTORY_FILE,
    SAMPLES_FOLDER,
    has_checkpoints,
    is_finished,
    remove_checkpoints,
    run_folder,
)
from polynet_keras.training.runs.preparation import compiled_model, held_out_data, preprocessing_of, training_data
from polynet_keras.training.runs.samples import held_out_samples


@dataclass(frozen=True)
class RunResult:
    """What a run left.

    Attributes:
        folder: of the run.
        card: of the model, with the held-out counts.
        samples: a few held-out image files, to predict with.
    """

    folder: Path
    card: ModelCard
    samples: tuple[str, ...]


def train(recipe: Recipe, folder: str | os.PathLike | None = None, execution: Execution | None = None) -> RunResult:
    """Trains a PolyNet and leaves the model, recipe, history, TensorBoard logs and curves in a run folder.

    A run that ended before it was done goes on where it was saved last, when it is started again with its recipe
    and its folder. Several workers, each in a process of its own that calls this with the same arguments, train
    together; the chief writes. Where nothing was saved yet, an interrupt or an unreadable image leaves no run folder.

    Args:
        recipe: what to do.
        folder: of the run: new, empty, or of an unfinished run of this recipe; by default one in `runs/`, named after
            the data and the time. Several workers need one that all of them see.
        execution: on which devices, and how often to save; by default what the environment says, every ten minutes.

    Raises:
        DivergenceError: the loss is not finite any more. The net as it was last saved is in `last_good.keras`.
        ValueError: the data or the weights to start with cannot be read, the folder not be written, the extra `data` is
            not installed, or the workers do not do the same thing.
        KeyboardInterrupt: interrupted; the run goes on from where it was saved last.
        PeerFailure: another worker failed or did not answer in time.
        Preempted: this process or another worker was told to end (SIGTERM); the run was saved.
    """
    require_extra("data", "PIL", "matplotlib", "tensorboard")
    execution = execution or Execution()
    cluster = Cluster.from_environment()
    if cluster.is_distributed and folder is None:
        raise ValueError("several workers need the same run folder: name one with --run_dir, on storage they all see")
    if execution.deterministic:
        tf.config.experimental.enable_op_determinism()
    with peer_failures(cluster):
        facts = {**recipe.facts(), "gradient_dtype": execution.gradient_dtype}
        if not (folder and has_checkpoints(Path(folder))):
            facts |= _facts_of_file(recipe.start.file)
        strategy = _open_strategy(cluster, execution, facts)
        source = open_source(recipe.data, recipe.seed)
        _check_same_images(source, strategy)
        result = _train(recipe, source, folder, execution, strategy)
        sum_over_workers(strategy, 0)  # nobody leaves while the chief still writes: it would be taken for a failure
        return result


def _open_strategy(cluster: Cluster, execution: Execution, facts: dict[str, str]) -> tf.distribute.Strategy | None:
    try:
        return open_strategy(execution.strategy, cluster, execution.communication, execution.tpu, facts)
    except MissingWorkerError as error:
        if not execution.attempt:
            raise
        # An earlier attempt has shown that the cluster is described rightly: who is late may be there at the next.
        logging.error("%s; all workers end, and can be started again", error)
        raise PeerFailure(str(error)) from None


def _train(
    recipe: Recipe,
    source: Source,
    folder: str | os.PathLike | None,
    execution: Execution,
    strategy: tf.distribute.Strategy | None,
) -> RunResult:
    keras.utils.set_random_seed(recipe.seed)
    chief = is_chief(strategy)
    if folder and _is_finished(folder, execution, strategy):
        check_shared_folder(folder, strategy)  # after which it shows what the chief sees
        return RunResult(Path(folder), ModelCard.load(folder), ())
    opened = run_folder(folder, recipe) if chief else contextlib.nullcontext(Path(folder or ""))
    with opened as path, warnings.catch_warnings():
        # Keras says so at each end of a validation whose length it does not know; the training data have no end.
        warnings.filterwarnings("ignore", "Your input ran out of data")
        check_shared_folder(path, strategy)
        return _train_in(path, recipe, source, execution, strategy)


def _is_finished(folder: str | os.PathLike, execution: Execution, strategy: tf.distribute.Strategy | None) -> bool:
    """Whether an attempt before this one ended after it was done: the chief says so, for a shared folder may show it to
    the others later."""
    return sum_over_workers(strategy, int(is_chief(strategy) and execution.attempt > 0 and is_finished(folder))) > 0


def _train_in(
    path: Path, recipe: Recipe, source: Source, execution: Execution, strategy: tf.distribute.Strategy | None
) -> RunResult:
    chief = is_chief(strategy)
    preprocessing = preprocessing_of(recipe, source)
    checkpoints = Checkpoints(
        path / CHECKPOINTS_FOLDER,
        every_steps=execution.save_every_steps,
        every_minutes=execution.save_every_minutes,
        at_epoch_ends=True,
        skip_data=False,
        fingerprint=recipe.fingerprint,
        strategy=strategy,
    )
    unread, unread_held_out = Unreadable(recipe.on_error), Unreadable(recipe.on_error)
    training = training_data(recipe, source, preprocessing, unread, strategy, checkpoints.position.global_step)
    validation = held_out_data(recipe, source, preprocessing, unread_held_out, strategy)
    with contextlib.nullcontext() if strategy is None else strategy.scope():
        model = compiled_model(recipe, source, training.steps, goes_on=checkpoints.position.global_step > 0)
        model.gradient_dtype = execution.gradient_dtype
    describe = logging.info if chief else logging.debug
    describe(
        "%s: %d classes, %d images to train on, %d held out; %s parameters; %s; run folder %s",
        recipe.data,
        len(source.class_names),
        len(source.training),
        len(source.held_out),
        f"{model.count_params():,}",
        "one process" if strategy is None else f"{strategy.num_replicas_in_sync} replicas",
        path,
    )
    fail_together(strategy, _no_room(path, model) if chief else None)
    with reading(unread_held_out), reading(unread):
        fit(model, recipe, training, len(source.training), validation, path, checkpoints, strategy)
    skipped = sum_over_workers(strategy, len(unread_held_out.skipped))
    counted = len(source.held_out) - skipped
    if not counted:
        raise ValueError(f"{source.held_out.name} has no image that can be read")
    with reading(unread_held_out):
        correct = round(model.evaluate(validation, verbose=0)[1] * counted)
    fingerprint = source.held_out.fingerprint
    card = ModelCard(source.class_names, preprocessing, counted, correct, recipe.structure, fingerprint)
    unread.log(len(source.training))
    unread_held_out.log(len(source.held_out))
    some_are_damaged = sum_over_workers(strategy, int(warned()))
    if not chief:
        return RunResult(path, card, ())
    try:
        with written_whole(path / MODEL_FILE) as partial:
            model.save(partial)
        try:
            plot_curves(path / HISTORY_FILE, path / CURVES_FILE)
        except ValueError as error:
            logging.warning("no curves are drawn: %s", error)
        samples = held_out_samples(source, path / SAMPLES_FOLDER, set(unread_held_out.skipped))
        card.save(path)  # last: it says that the run is done
    except OSError as error:
        raise ValueError(
            f"run_dir={os.fspath(path)!r} cannot be written at the end of the training: {error.strerror or error}. "
            "Once that is mended, the same command with this --run_dir goes on from the last checkpoint"
        ) from None
    remove_checkpoints(path)
    if some_are_damaged:  # it may take a while: what was trained is saved
        log_damaged(source.training, source.held_out)
    return RunResult(path, card, samples)


def _no_room(path: Path, model: keras.Model) -> ValueError | None:
    """The error of a disk that cannot hold the model, before hours are spent on it."""
    needed = sum(math.prod(v.shape) * tf.as_dtype(v.dtype).size for v in model.variables)
    free = shutil.disk_usage(path).free
    if free >= needed:
        return None
    return ValueError(
        f"run_dir={os.fspath(path)!r} has {free / 1e6:.1f} MB of free space, and the model alone takes "
        f"{needed / 1e6:.1f} MB: make room, or name a folder on another disk"
    )


def _check_same_images(source: Source, strategy: tf.distribute.Strategy | None) -> None:
    """All workers must list the same examples: each reads its part of them by number."""
    fingerprint = source.training.fingerprint + source.held_out.fingerprint
    number = zlib.crc32(fingerprint.encode()) >> 1
    chiefs = sum_over_workers(strategy, number if is_chief(strategy) else 0)
    failure = None
    if number != chiefs:
        failure = ValueError(f"{source.training.name}: this worker finds other images there than the chief does")
    fail_together(strategy, failure)


def _facts_of_file(file: str | None) -> dict[str, str]:
    """What all workers must find in the file that they start with."""
    if file is None or not os.path.isfile(file):
        return {}
    return {"start.weights, the file's SHA-256": file_hash(file)}
