"""Computes the features of a run's images, or finds them in files."""

import contextlib
import dataclasses
import hashlib
import itertools
import json
import os
import shutil
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import keras
import numpy as np

from polynet_keras.basics.files import written_whole
from polynet_keras.basics.names import number_of, shown, size_text
from polynet_keras.basics.news import tell
from polynet_keras.basics.progress import progress
from polynet_keras.cluster.agreement import fail_together, sum_over_workers
from polynet_keras.cluster.patience import half_a_wait
from polynet_keras.cluster.shared_folder import APPEAR_SECONDS, look_again
from polynet_keras.cluster.workers import Strategy, is_chief, worker_count, worker_index
from polynet_keras.data.class_weights import BALANCED
from polynet_keras.data.examples import Examples, Source
from polynet_keras.data.pipeline import images_once
from polynet_keras.data.protocol import Preprocessing
from polynet_keras.data.unreadable import Unreadable, reading
from polynet_keras.engine.network import Network
from polynet_keras.training.features.files import FeatureFiles
from polynet_keras.training.features.frozen import frozen_part, weights_hash
from polynet_keras.training.recipes.recipe import Recipe
from polynet_keras.version import __version__

ABOUT_FILE = "about.json"
KEY_DIGITS = 16
"""Hexadecimal digits in the name of a folder of features: of the SHA-256 of everything that decides the features."""


@dataclass(frozen=True)
class Pass:
    """One pass of examples through the frozen part.

    Attributes:
        examples: the examples.
        epoch: the epoch whose augmentation they get; None for their centre crops.
        about: everything that decides the features, as JSON; its hash names the folder.
        files: files of the features.
    """

    examples: Examples
    epoch: int | None
    about: str
    files: FeatureFiles


@dataclass(frozen=True)
class RunFeatures:
    """The features that a run trains on and is evaluated with, in place of images.

    Attributes:
        training: copies of each training image: epoch e uses copy e % len(training).
        held_out: features of the held-out images.
        validation: features of the images that choose the best epoch, if there are any.
    """

    training: list[FeatureFiles]
    held_out: FeatureFiles
    validation: FeatureFiles | None


def run_features(
    model: Network,
    recipe: Recipe,
    source: Source,
    preprocessing: Preprocessing,
    folder: Path,
    strategy: Strategy | None,
) -> RunFeatures:
    """Returns the frozen part's outputs for all images of a run: from files if they exist, else computed.

    Each worker computes a part. On return, all files exist, and all workers see them.

    Args:
        model: model of the recipe, with its initial weights.
        recipe: recipe of the run, with `start.cache_features`.
        source: source of its images.
        preprocessing: preprocessing for evaluation.
        folder: folder of the files, which all workers share; it has a subfolder for each key.
        strategy: strategy of the model.

    Raises:
        ValueError: an image cannot be read, the files cannot be written, or the disk has no room.
    """
    front = frozen_part(model, recipe.start.frozen_through or "")
    key = _key(front, recipe, preprocessing)
    copies = recipe.start.cache_features
    epochs = [None] if copies == 1 else range(min(copies, recipe.epochs))
    training = _passes(source.training, epochs, front, key, recipe, folder)
    held_out = _passes(source.held_out, [None], front, key, recipe, folder)
    chosen_by = [] if source.validation is None else _passes(source.validation, [None], front, key, recipe, folder)
    passes = [*training, *chosen_by, *held_out]
    fail_together(strategy, _prepare(folder, passes) if is_chief(strategy) else None)
    # One pipeline for each set of images, which takes seconds to trace.
    groups = [training, chosen_by, held_out]
    _compute(front, groups, recipe, preprocessing, strategy)
    _wait_for(passes, strategy)
    files = [one.files for one in training]
    return RunFeatures(files, held_out[0].files, chosen_by[0].files if chosen_by else None)


def _key(front: Network, recipe: Recipe, preprocessing: Preprocessing) -> dict[str, object]:
    """Returns everything that decides the frozen part's output for an image."""
    return {
        "weights": weights_hash(front),
        "network": [recipe.structure, recipe.width, recipe.start.frozen_through, recipe.precision],
        "data_format": keras.config.image_data_format(),
        "preprocessing": dataclasses.asdict(preprocessing),
        "on_error": recipe.on_error,
        "versions": [__version__, *map(version, ("keras", "tensorflow"))],
        # The last bits differ. Folders of older versions, which knew one backend, keep their names.
        **({} if keras.backend.backend() == "tensorflow" else {"backend": keras.backend.backend()}),
    }


def _passes(
    examples: Examples,
    epochs: Iterable[int | None],
    front: Network,
    key: dict[str, object],
    recipe: Recipe,
    folder: Path,
) -> list[Pass]:
    """Returns the passes of one set of images, one for each copy."""
    images = [examples.name, len(examples), examples.fingerprint, _times(examples)]
    (output,) = front.outputs
    passes = []
    for epoch in epochs:
        facts = {**key, "images": images}
        if epoch is not None:
            facts["copy"] = [epoch, recipe.seed, dataclasses.asdict(recipe.augmentation)]
            if recipe.on_error == "skip":  # it decides what replaces an image that cannot be read
                facts["sampling"] = recipe.sampling
        text = json.dumps(facts, sort_keys=True, indent=2)
        place = folder / hashlib.sha256(text.encode()).hexdigest()[:KEY_DIGITS]
        files = FeatureFiles(place, len(examples), output.shape[1:], output.dtype)
        passes.append(Pass(examples, epoch, text, files))
    return passes


def _times(examples: Examples) -> str:
    """Returns a hash of the files' modification times: a fingerprint covers only their names and sizes."""
    digest = hashlib.sha256()
    for index in range(len(examples) if examples.are_files else 0):
        with contextlib.suppress(OSError):  # the reader reports the missing file
            digest.update(b"%d " % os.stat(examples.name_of(index)).st_mtime_ns)
    return digest.hexdigest()


def _prepare(folder: Path, passes: Sequence[Pass]) -> ValueError | None:
    """Logs the work to do, and makes the folders; returns the error if the work is impossible."""
    files = [one.files for one in passes]
    missing = [sum(len(one.examples_of(chunk)) for chunk in one.missing()) for one in files]
    images, needed = sum(one.count for one in files), sum(one.bytes for one in files)
    what = f"{number_of(images, 'image')}, each {size_text(files[0].shape)} numbers, {_size(needed)} in {shown(folder)}"
    if not any(missing):
        tell("features of %s: they already exist, and are used again", what)
        return None
    there = f"; those of {number_of(images - sum(missing), 'image')} exist" if sum(missing) < images else ""
    tell("features of %s: they are computed once%s", what, there)
    to_come = sum(count * one.bytes // one.count for count, one in zip(missing, files, strict=True))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(folder).free
        if free < to_come:
            return ValueError(
                f"{os.fspath(folder)!r} has {_size(free)} of free space, and the features that are computed once take "
                f"{_size(to_come)}: make room, name a folder on another disk with --features_dir, or lower "
                "--cache_features"
            )
        for one in passes:
            one.files.folder.mkdir(exist_ok=True)
            about = one.files.folder / ABOUT_FILE
            if not about.is_file():
                with written_whole(about) as partial:
                    partial.write_text(f"{one.about}\n")
    except OSError as error:
        return _cannot_be_written(folder, error)
    return None


def _compute(
    front: Network,
    groups: Sequence[Sequence[Pass]],
    recipe: Recipe,
    preprocessing: Preprocessing,
    strategy: Strategy | None,
) -> None:
    """Computes missing features: each worker a part of the files, all file by file, so that no worker waits long."""
    workers, worker = (1, 0) if strategy is None else (worker_count(strategy), worker_index(strategy))
    batch_size = -(-recipe.batch_size // (1 if strategy is None else strategy.num_replicas_in_sync))
    unreadable = [Unreadable(recipe.on_error) for _ in groups]
    work, images = [], 0
    # By the numbers of all files: others may see other files as missing while they are written.
    numbers = itertools.count()
    for group, unread in zip(groups, unreadable, strict=True):
        parts = [
            (one, chunk) for one in group for chunk in range(one.files.chunks) if next(numbers) % workers == worker
        ]
        missing = {one.files.folder: one.files.missing() for one in group}
        mine = [(one, chunk) for one, chunk in parts if chunk in missing[one.files.folder]]
        images += sum(len(one.files.examples_of(chunk)) for one, chunk in mine)
        if mine:
            work.append(_written(front, mine, recipe, preprocessing, batch_size, unread))
    written = itertools.chain.from_iterable(work)
    bar = progress(images, "features") if images and is_chief(strategy) else contextlib.nullcontext(lambda count: None)
    with bar as advance:
        while True:
            done, failure = 0, None
            try:
                with reading(*unreadable):
                    done = next(written, 0)
            except (OSError, ValueError) as error:
                failure = error if isinstance(error, ValueError) else ValueError(error.strerror or str(error))
            fail_together(strategy, failure)
            if not sum_over_workers(strategy, done):
                break
            advance(done)
    for group, unread in zip(groups, unreadable, strict=True):
        if group:
            unread.log(len(group[0].examples))


def _written(
    front: Network,
    jobs: Sequence[tuple[Pass, int]],
    recipe: Recipe,
    preprocessing: Preprocessing,
    batch_size: int,
    unreadable: Unreadable,
) -> Iterator[int]:
    """Computes and writes the files of some passes of the same examples; yields each file's number of images."""
    indices = [one.files.examples_of(chunk) for one, chunk in jobs]
    sizes = [[min(batch_size, len(part) - start) for start in range(0, len(part), batch_size)] for part in indices]
    epochs = [np.full(len(part), one.epoch or 0) for (one, _), part in zip(jobs, indices, strict=True)]
    first = jobs[0][0]
    augmented = first.epoch is not None
    by_class = augmented and recipe.sampling == BALANCED and recipe.on_error == "skip"
    batches = images_once(
        first.examples,
        preprocessing,
        np.concatenate(indices),
        [size for part in sizes for size in part],
        unreadable,
        epochs=np.concatenate(epochs) if augmented else None,
        seed=recipe.seed,
        augmentation=recipe.augmentation,
        labels=first.examples.labelled(recipe.on_error).labels if by_class else None,
    ).as_numpy_iterator()
    for (one, chunk), part in zip(jobs, sizes, strict=True):
        taken = itertools.islice(batches, len(part))
        computed = [(front.predict_on_batch(images), labels, valid) for images, labels, valid in taken]
        features, labels, readable = map(np.concatenate, zip(*computed, strict=True))
        try:
            one.files.write(chunk, features, labels, readable)
        except OSError as error:
            raise _cannot_be_written(one.files.folder, error) from None
        yield len(labels)


def _wait_for(passes: Sequence[Pass], strategy: Strategy | None) -> None:
    """Waits for the files of other workers, which a network file system may show late.

    Raises:
        ValueError: on every worker, if one of them does not see the files.
    """
    seconds = half_a_wait(strategy, APPEAR_SECONDS)
    deadline = time.monotonic() + seconds
    failure = None
    for folder, missing in ((one.files.folder, one.files.missing) for one in passes):
        while missing() and time.monotonic() < deadline:
            look_again(folder)
        if missing():
            failure = ValueError(
                f"{shown(folder)} lacks features that another worker computed: they did not appear within {seconds:g} "
                "s. Give all workers one folder, on storage that they share"
            )
    fail_together(strategy, failure)


def _cannot_be_written(folder: Path, error: OSError) -> ValueError:
    return ValueError(f"{os.fspath(folder)!r} cannot be written: {error.strerror or error}")


def _size(count: float) -> str:
    return f"{count / 1e6:,.1f} MB"
