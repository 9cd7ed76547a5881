"""Writing a folder of images as TFRecord files: sharded, with checksums and a manifest, in parallel and resumable."""

import functools
import hashlib
import math
import multiprocessing
import os
import re
import signal
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, CancelledError, Executor, ProcessPoolExecutor, ThreadPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from absl import logging
from tqdm import tqdm

from polynet_keras.basics.checks import check_choice, check_integer
from polynet_keras.basics.files import file_hash
from polynet_keras.basics.holding import holding, make_folder
from polynet_keras.basics.names import shown
from polynet_keras.basics.tensorflow_errors import plain_message
from polynet_keras.data.decoding import ON_ERROR
from polynet_keras.data.folders import ClassFolder, list_splits
from polynet_keras.data.image_files import decode_image, read_encoded
from polynet_keras.data.records.manifest import MANIFEST, UNFINISHED, Manifest, Shard, Split, damage
from polynet_keras.data.records.read import Features

SHARD_BYTES = 128 << 20
"""Of image files in a shard, by default: TensorFlow's guide advises 100 MB or more."""
LOG_SECONDS = 10.0
"""Between the lines that say how far it is, where there is no terminal for a progress bar."""


def write_records(
    folder: str | os.PathLike,
    output: str | os.PathLike,
    *,
    split: str = "train",
    class_names: Sequence[str] | None = None,
    shards: int | None = None,
    seed: int = 0,
    on_error: str = "error",
    processes: int | None = None,
) -> Manifest:
    """Writes the images of a folder as TFRecord files, `train-00000-of-00008.tfrecord`, and a manifest.

    A record is a `tf.train.Example` with tf-models' names: `image/encoded` (the file as it is), `image/class/label`
    (from 0), `image/class/text`, `image/filename` (the path in the split), `image/height` and `image/width` (upright).
    Every image is decoded once to see that it can be. What an interrupted call has finished, the next one keeps; the
    files' bytes depend neither on that nor on `processes`.

    Args:
        folder: of classes, or of splits that are folders of classes; see `list_splits`.
        output: where the files go: a new or empty folder, or one that the same call has begun.
        split: the name of the only split of a folder of classes.
        class_names: names of the classes' folders, by label; see `list_splits`.
        shards: how many for each split; by default so many that each has at most about 128 MiB. They differ by one
            image at most, before unreadable ones are left out.
        seed: of the order of the images.
        on_error: `"error"` stops at an image that cannot be read, `"skip"` leaves it out and lists it in the manifest.
        processes: how many write at once, each with one image in memory; by default one a core. Two or more are
            spawned: a script that calls this has to guard it with `if __name__ == "__main__"`.

    Raises:
        ValueError: an argument out of range, a folder that cannot be listed, an `output` that holds something else or
            is written by another process, or an image that cannot be read.
        OSError: a file cannot be written, or a process was killed.
    """
    check_choice("on_error", on_error, ON_ERROR)
    if not re.fullmatch(r"[A-Za-z0-9_]+", split):
        raise ValueError(f"split={split!r} must be of letters, digits and underscores: it is part of the files' names")
    for name, value, minimum in (("shards", shards, 1), ("seed", seed, 0), ("processes", processes, 1)):
        if value is not None:
            check_integer(name, value, minimum)
    output = Path(output)
    if output.resolve().is_relative_to(Path(folder).resolve()):
        raise ValueError(f"output={str(output)!r} must not lie in the folder of the images, {os.fspath(folder)!r}")
    splits = list_splits(folder, split, class_names)
    planned = {name: Split(images.fingerprint, _shard_count(name, images, shards)) for name, images in splits.items()}
    plan = Manifest(next(iter(splits.values())).class_names, int(seed), planned)
    make_folder("output", output)
    with holding("output", output):
        known = {shard.file: shard for shard in _shards_so_far(output, plan) if on_error == "skip" or not shard.skipped}
        tasks = [
            _Task(output / file, part, on_error, known.get(file))
            for name, images in splits.items()
            for file, part in _parts(name, images, plan).items()
        ]

        def keep(shard: Shard) -> None:
            known[shard.file] = shard
            _with_shards(plan, known).save(output / UNFINISHED)

        _write_all(tasks, processes or os.cpu_count() or 1, keep)
        manifest = _with_shards(plan, known)
        manifest.save(output / MANIFEST)
        (output / UNFINISHED).unlink()
    return manifest


def _shard_count(name: str, images: ClassFolder, shards: int | None) -> int:
    if shards is None:
        return min(len(images), max(1, math.ceil(images.sizes.sum() / SHARD_BYTES)))
    if shards > len(images):
        raise ValueError(f"shards={shards} must be at most the {len(images)} images of the split {name!r}")
    return int(shards)


def _parts(name: str, images: ClassFolder, plan: Manifest) -> dict[str, ClassFolder]:
    """By the file's name, the images of each shard of a split.

    Their order is that of hashes of seed and path, and so the same with every version of every random generator.
    """
    keys = [hashlib.sha256(b"%d:%s" % (plan.seed, os.fsencode(path))).digest() for path in images.paths]
    order = np.array(sorted(range(len(keys)), key=keys.__getitem__))
    count = plan.splits[name].shard_count
    return {
        f"{name}-{shard:05d}-of-{count:05d}.tfrecord": replace(
            images,
            paths=tuple(images.paths[index] for index in members),
            labels=images.labels[members],
            sizes=images.sizes[members],
        )
        for shard, members in enumerate(np.array_split(order, count))
    }


def _with_shards(plan: Manifest, shards: dict[str, Shard]) -> Manifest:
    def of_split(name: str) -> tuple[Shard, ...]:
        return tuple(shards[file] for file in sorted(shards) if file.startswith(f"{name}-"))

    return replace(plan, splits={name: replace(split, shards=of_split(name)) for name, split in plan.splits.items()})


def _shards_so_far(output: Path, plan: Manifest) -> list[Shard]:
    """What an earlier call of the same plan has finished.

    Raises:
        ValueError: the folder holds something else; the message says what differs.
    """
    path = next((output / name for name in (UNFINISHED, MANIFEST) if (output / name).is_file()), None)
    if path is None:
        others = sorted(entry.name for entry in output.iterdir() if not entry.name.startswith("."))
        if others:
            raise ValueError(
                f"output={str(output)!r} holds {others[0]!r} and no manifest; name a new or an empty folder"
            )
        plan.save(output / UNFINISHED)
        return []
    found = Manifest.load(path)
    differences = []
    if found.class_names != plan.class_names:
        differences.append("other class names")
    if found.seed != plan.seed:
        differences.append(f"seed={found.seed}, not {plan.seed}")
    if list(found.splits) != list(plan.splits):
        differences.append(f"the splits {', '.join(found.splits)}, not {', '.join(plan.splits)}")
    for name in found.splits.keys() & plan.splits.keys():
        old, new = found.splits[name], plan.splits[name]
        if old.fingerprint != new.fingerprint:
            differences.append(f"other images in {name!r}")
        if old.shard_count != new.shard_count:
            differences.append(f"{old.shard_count} shards of {name!r}, not {new.shard_count}")
    if differences:
        raise ValueError(f"output={str(output)!r} holds records with {'; '.join(differences)}. Name a new folder")
    return [shard for split in found.splits.values() for shard in split.shards]


@dataclass(frozen=True)
class _Task:
    """One shard to write.

    Attributes:
        target: its path.
        images: what goes into it, in this order.
        on_error: as of `write_records`.
        known: what an earlier call has written there, if it has.
    """

    target: Path
    images: ClassFolder
    on_error: str
    known: Shard | None


def _write_all(tasks: Sequence[_Task], processes: int, keep: Callable[[Shard], None]) -> None:
    """Writes shards in parallel and calls `keep` for each; after an error or an interrupt, no file is half written."""
    total = sum(len(task.images) for task in tasks)
    context = multiprocessing.get_context("spawn")
    shared = _Shared(context.Value("q", 0), context.Event())
    executor: Executor
    write: Callable[[_Task], Shard]
    if min(processes, len(tasks)) == 1:
        executor, write = ThreadPoolExecutor(1), functools.partial(_write_shard, shared)
    else:
        executor = ProcessPoolExecutor(min(processes, len(tasks)), context, _start_process, (shared,))
        write = _write_shard_here
    with executor, tqdm(total=total, unit="images", disable=None) as bar:
        try:
            pending = {executor.submit(write, task) for task in tasks}
            logged = time.monotonic()
            while pending:
                finished, pending = wait(pending, timeout=0.2, return_when=FIRST_COMPLETED)
                bar.update(shared.counter.value - bar.n)
                if bar.disable and time.monotonic() > logged + LOG_SECONDS:
                    logged = time.monotonic()
                    logging.info("%d of %d images", shared.counter.value, total)
                for future in finished:
                    keep(future.result())
        except BrokenProcessPool:
            raise OSError(
                "a writing process has died, perhaps for lack of memory; the same call with processes=1 goes on"
            ) from None
        finally:
            shared.stop.set()
            executor.shutdown(cancel_futures=True)


@dataclass(frozen=True)
class _Shared:
    """What all who write for one call share.

    Attributes:
        counter: of the images that they are done with.
        stop: set when they are to leave off.
    """

    counter: Any
    stop: Any

    def count(self, images: int) -> None:
        with self.counter.get_lock():
            self.counter.value += images


_shared: _Shared
"""In a process that was started to write for one call, and only there: no task can hold it on its way to a process."""


def _start_process(shared: _Shared) -> None:
    global _shared
    _shared = shared
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal sends it to all; the parent tells when to stop
    parent = multiprocessing.parent_process()
    assert parent is not None

    def end_with_parent() -> None:
        parent.join()
        os._exit(1)

    # Else it would wait for work for ever when the parent is killed.
    threading.Thread(target=end_with_parent, daemon=True).start()


def _write_shard_here(task: _Task) -> Shard:
    return _write_shard(_shared, task)


def _write_shard(shared: _Shared, task: _Task) -> Shard:
    """Writes a shard, or sees that it is there."""
    if task.known is not None and damage(task.target, task.known) is None:
        shared.count(len(task.images))
        return task.known
    partial = task.target.with_name(f".{task.target.name}")
    skipped = {}
    try:
        with tf.io.TFRecordWriter(os.fsencode(partial)) as writer:
            for index, path in enumerate(task.images.paths):
                if shared.stop.is_set():
                    raise CancelledError
                try:
                    writer.write(_record(task.images, index))
                except ValueError as error:
                    if task.on_error == "error":
                        raise
                    skipped[path] = str(error).removeprefix(f"{shown(task.images.folder / path)}: ")
                shared.count(1)
        count = len(task.images) - len(skipped)
        shard = Shard(task.target.name, count, partial.stat().st_size, file_hash(partial), skipped)
        os.replace(partial, task.target)
    except tf.errors.OpError as error:
        raise OSError(f"{task.target}: cannot be written: {plain_message(error)}") from None
    finally:
        partial.unlink(missing_ok=True)
    return shard


def _record(images: ClassFolder, index: int) -> bytes:
    """The serialized `tf.train.Example` of an image; ValueError if it cannot be read."""
    path = images.folder / images.paths[index]
    encoded = read_encoded(path)  # once: what is written is what was decoded
    height, width = decode_image(encoded, 3, shown(path)).shape[:2]
    if len(encoded) != images.sizes[index]:
        raise ValueError(f"{shown(path)}: has changed since the folder was listed; run the command again")
    label = int(images.labels[index])
    features = Features()

    def text(*values: bytes) -> tf.train.Feature:
        return tf.train.Feature(bytes_list=tf.train.BytesList(value=values))

    def integer(*values: int) -> tf.train.Feature:
        return tf.train.Feature(int64_list=tf.train.Int64List(value=values))

    feature = {
        features.image: text(encoded),
        features.label: integer(label),
        "image/class/text": text(os.fsencode(images.class_names[label])),
        "image/filename": text(os.fsencode(images.paths[index])),
        "image/height": integer(height),
        "image/width": integer(width),
    }
    # The order of a map is not defined, unless it is asked for.
    return tf.train.Example(features=tf.train.Features(feature=feature)).SerializeToString(deterministic=True)
