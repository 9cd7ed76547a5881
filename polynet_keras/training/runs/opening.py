"""Opens a run's devices and images, with the agreement of all workers, and reports on the data."""

import contextlib
import dataclasses
import os
import zlib
from collections.abc import Iterator

import keras
import tensorflow as tf
from absl import logging

from polynet_keras.basics.extras import require_extra
from polynet_keras.basics.files import file_hash
from polynet_keras.basics.names import shown, some_of
from polynet_keras.basics.news import tell, without_logs
from polynet_keras.cluster.agreement import fail_together, sum_over_workers
from polynet_keras.cluster.cluster import Cluster
from polynet_keras.cluster.failures import PeerFailure, peer_failures
from polynet_keras.cluster.jax_devices import JaxDevices, open_devices
from polynet_keras.cluster.rendezvous import MissingWorkerError
from polynet_keras.cluster.strategies import open_strategy
from polynet_keras.cluster.workers import Strategy, is_chief, scope_of
from polynet_keras.data.class_weights import BALANCED, weights_by_label
from polynet_keras.data.examples import Source
from polynet_keras.data.inventory import CLASSES_SHOWN, tell_inventory
from polynet_keras.data.source_names import modules_of
from polynet_keras.data.sources import open_source
from polynet_keras.training.recipes.recipe import Recipe
from polynet_keras.training.recipes.teacher import find_teacher, teacher_hash
from polynet_keras.training.runs.checking import check_backend, check_patience
from polynet_keras.training.runs.execution import Execution

_told: set[str] = set()
"""Fingerprints of the data that this process has reported: the runs of an ablation have the same data."""


@contextlib.contextmanager
def opened(recipe: Recipe, execution: Execution, goes_on: bool = False) -> Iterator[tuple[Source, Strategy | None]]:
    """Opens the images and the devices of a run; reports another worker's failure inside the context as such.

    Args:
        recipe: recipe of the run.
        execution: execution of the run.
        goes_on: whether the run continues from a checkpoint: the file of its initial weights may be gone.

    Raises:
        ValueError: the data or the initial weights cannot be read, the extra `data` is not installed, Keras's backend
            cannot train like this, or the workers do not do the same thing.
        PeerFailure: another worker failed or did not answer in time.
    """
    require_extra("data", "PIL", "matplotlib", "tensorboard", *modules_of(recipe.data))
    cluster = Cluster.from_environment()
    check_backend(keras.backend.backend(), recipe, execution)
    if keras.backend.backend() != "tensorflow":
        # There TensorFlow only prepares the images, and would take all memory of a GPU.
        tf.config.set_visible_devices([], "GPU")
    if execution.deterministic:
        tf.config.experimental.enable_op_determinism()
    with peer_failures(cluster):
        facts = {**recipe.facts(), "gradient_dtype": execution.gradient_dtype}
        if not goes_on:
            facts |= _facts_of_file(recipe.start.file)
        if recipe.regularization.teacher is not None:
            facts["teacher, the file's SHA-256"] = teacher_hash(find_teacher(recipe.regularization.teacher))
        strategy = _open_strategy(cluster, execution, facts)
        devices = strategy if isinstance(strategy, JaxDevices) else None
        if devices is not None:
            _check_parts(recipe, devices)
        source = _images(recipe, strategy)
        check_patience(recipe, source.validation is not None)
        _check_same_images(source, strategy)
        if recipe.class_weights is not None or recipe.sampling == BALANCED:
            source = dataclasses.replace(source, training=source.training.labelled(recipe.on_error))
        with scope_of(devices):  # of TensorFlow, `fit` is outside of it
            yield source, strategy
        sum_over_workers(strategy, 0)  # no worker may leave while the chief still writes: it would look like a failure
        if devices is not None:
            devices.leave()


def tell_of_data(recipe: Recipe, source: Source, strategy: Strategy | None, strict: bool) -> None:
    """Has the chief report on the images, once per process.

    Raises:
        ValueError: `strict` is set, and an image file is in several splits.
    """
    fingerprint = _fingerprint(source)
    failure = None
    if is_chief(strategy) and (strict or fingerprint not in _told):
        _told.add(fingerprint)
        try:
            tell_inventory(recipe.data, source, recipe.on_error, strict)
        except ValueError as error:
            failure = error
    fail_together(strategy, failure)
    labels = source.training.labels
    if recipe.class_weights is not None and labels is not None:
        weights = weights_by_label(recipe.class_weights, source.class_names, labels)
        told = some_of([f"{shown(n)} {w:.4g}" for n, w in zip(source.class_names, weights, strict=True)], CLASSES_SHOWN)
        if is_chief(strategy):
            tell("weights of the classes in the loss: %s", told)
            given = source.class_names if isinstance(recipe.class_weights, str) else recipe.class_weights
            if unnamed := [name for name in source.class_names if name not in given]:
                logging.warning("class_weights do not name %s: they weigh 1", some_of(unnamed, CLASSES_SHOWN))


def _images(recipe: Recipe, strategy: Strategy | None) -> Source:
    """Opens the images of a run; only the chief logs what a folder leaves out."""
    if is_chief(strategy):
        return open_source(recipe.data, recipe.seed, recipe.layout, recipe.validation_share)
    with without_logs():
        return open_source(recipe.data, recipe.seed, recipe.layout, recipe.validation_share)


def _open_strategy(cluster: Cluster, execution: Execution, facts: dict[str, str]) -> Strategy | None:
    try:
        if keras.backend.backend() == "jax":
            return open_devices(execution.strategy, cluster, execution.communication, facts)
        return open_strategy(execution.strategy, cluster, execution.communication, execution.tpu, facts)
    except MissingWorkerError as error:
        if not execution.attempt:
            raise
        # An earlier attempt has shown that the cluster's description is right: a late worker may be there next time.
        logging.error("%s; all workers exit, and can be started again", error)
        raise PeerFailure(str(error)) from None


def _check_parts(recipe: Recipe, devices: JaxDevices) -> None:
    """Refuses batches that each device would compute as a whole; the pipeline checks those of TensorFlow."""
    count = devices.num_replicas_in_sync
    if recipe.batch_size % count:
        raise ValueError(
            f"batch_size={recipe.batch_size} must be a multiple of {count}, the number of devices that share a batch: "
            "choose another one" + ("" if devices.processes > 1 else ", or pass --strategy=none for one device")
        )


def _check_same_images(source: Source, strategy: Strategy | None) -> None:
    """Checks that all workers list the same examples: each reads its part of them by index."""
    number = zlib.crc32(_fingerprint(source).encode()) >> 1
    chiefs = sum_over_workers(strategy, number if is_chief(strategy) else 0)
    failure = None
    if number != chiefs:
        failure = ValueError(f"{source.training.name}: this worker finds other images there than the chief does")
    fail_together(strategy, failure)


def _fingerprint(source: Source) -> str:
    return "".join(part.fingerprint for part in source.parts)


def _facts_of_file(file: str | None) -> dict[str, str]:
    """Returns facts about the file of initial weights that all workers must share."""
    if file is None or not os.path.isfile(file):
        return {}
    return {"start.weights, the file's SHA-256": file_hash(file)}
