"""Writing a folder of images as TFRecord files: sharded, with checksums and a manifest, in parallel and resumable."""

import hashlib
import math
import os
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from polynet_keras.basics.checks import check_choice, check_integer
from polynet_keras.basics.holding import holding, make_folder
from polynet_keras.basics.names import number_of
from polynet_keras.data.image_files import ON_ERROR
from polynet_keras.data.labelled_files import LabelledFiles, warn_of_untrained
from polynet_keras.data.listing import list_images
from polynet_keras.data.records.manifest import MANIFEST, UNFINISHED, Manifest, Shard, Split
from polynet_keras.data.records.shards import Task, write_all
from polynet_keras.data.records.shrinking import QUALITY, Shrinking
from polynet_keras.data.splits import TRAINING, split_of
from polynet_keras.data.tables import is_table

SHARD_BYTES = 128 << 20
"""Default bytes of image files in a shard: TensorFlow's guide advises 100 MB or more."""


def write_records(
    folder: str | os.PathLike,
    output: str | os.PathLike,
    *,
    split: str = "train",
    class_names: Sequence[str] | None = None,
    layout: str = "auto",
    shards: int | None = None,
    seed: int = 0,
    on_error: str = "error",
    processes: int | None = None,
    max_side: int | None = None,
    quality: int = QUALITY,
) -> Manifest:
    """Writes the images of a folder as TFRecord files, `train-00000-of-00008.tfrecord`, and a manifest.

    A record is a `tf.train.Example` with tf-models' names: `image/encoded` (the file, unchanged or shrunk),
    `image/class/label` (from 0), `image/class/text`, `image/filename` (the path in the split), `image/height` and
    `image/width` (upright). Every image is decoded once to check it. A call keeps the finished files of an interrupted
    one; the files' bytes do not depend on interruptions or on `processes`.

    Args:
        folder: folder of classes, or of splits that are folders of classes, or a table; see `list_images`.
        output: folder for the files: new or empty, or begun by the same call.
        split: the name of the only split of a folder of classes.
        class_names: names of the classes' folders, by label; see `list_splits`.
        layout: meaning of the folders in it: `"classes"`, `"splits"`, or `"auto"` to decide by their names.
        shards: number of shards per split; by default enough for at most about 128 MiB each. Their sizes differ by one
            image at most, before unreadable ones are left out.
        seed: seed of the order of the images.
        on_error: `"error"` stops at an image that cannot be read, `"skip"` leaves it out and lists it in the manifest.
        processes: number of writing processes, each with one image in memory; by default one per core. Two or more are
            spawned: a script that calls this function must guard the call with `if __name__ == "__main__"`.
        max_side: most pixels of the longer side: a larger image is shrunk to it, turned upright, and written as JPEG;
            files of smaller images are copied. By default all files are copied.
        quality: quality of these JPEG files, 1 to 100.

    Raises:
        ValueError: an argument is out of range, a folder cannot be listed, `output` holds something else or another
            process writes to it, or an image cannot be read.
        OSError: a file cannot be written, a process was killed, or another one has taken `output`.

    Examples:
        >>> manifest = write_records(photos, folder / "records", shards=2, processes=1)
        >>> sorted(path.name for path in (folder / "records").iterdir())
        ['manifest.json', 'train-00000-of-00002.tfrecord', 'train-00001-of-00002.tfrecord']
        >>> manifest.splits["train"].count
        10
    """
    check_choice("on_error", on_error, ON_ERROR)
    if not re.fullmatch(r"[A-Za-z0-9_]+", split):
        raise ValueError(f"split={split!r} must be of letters, digits and underscores: it is part of the files' names")
    for name, value, minimum in (("shards", shards, 1), ("seed", seed, 0), ("processes", processes, 1)):
        if value is not None:
            check_integer(name, value, minimum)
    shrinking = None if max_side is None else Shrinking(max_side, quality)
    output = Path(output)
    if not is_table(folder) and output.resolve().is_relative_to(Path(folder).resolve()):
        raise ValueError(f"output={str(output)!r} must not lie in the folder of the images, {os.fspath(folder)!r}")
    splits = list_images(folder, split, class_names, layout)
    for name, images in splits.items():
        if split_of(name) == TRAINING:
            warn_of_untrained(images.class_names, images.labels, f"data={os.fspath(folder)!r}")
    planned = {
        name: Split(images.fingerprint, _shard_count(name, images, shards, shrinking))
        for name, images in splits.items()
    }
    plan = Manifest(next(iter(splits.values())).class_names, int(seed), planned, shrinking=shrinking)
    make_folder("output", output)
    with holding("output", output) as hold:
        known = {shard.file: shard for shard in _shards_so_far(output, plan) if on_error == "skip" or not shard.skipped}
        tasks = [
            Task(output / file, part, on_error, shrinking, known.get(file))
            for name, images in splits.items()
            for file, part in _parts(name, images, plan).items()
        ]

        def keep(shard: Shard) -> None:
            hold.check(output)
            known[shard.file] = shard
            _with_shards(plan, known).save(output / UNFINISHED)

        write_all(tasks, processes or os.cpu_count() or 1, keep)
        manifest = _with_shards(plan, known)
        hold.check(output)
        manifest.save(output / MANIFEST)
        (output / UNFINISHED).unlink()
    return manifest


def _shard_count(name: str, images: LabelledFiles, shards: int | None, shrinking: Shrinking | None) -> int:
    if shards is None:
        sizes = images.sizes if shrinking is None else np.minimum(images.sizes, shrinking.usual_bytes)
        return min(len(images), max(1, math.ceil(sizes.sum() / SHARD_BYTES)))
    if shards > len(images):
        raise ValueError(f"shards={shards} must be at most the {number_of(len(images), 'image')} of the split {name!r}")
    return int(shards)


def _parts(name: str, images: LabelledFiles, plan: Manifest) -> dict[str, LabelledFiles]:
    """Returns the images of each shard of a split, by the file's name.

    Their order is that of hashes of seed and path, and so does not depend on the version of a random generator.
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
    """Returns the finished shards of an earlier call with the same plan.

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
    if found.shrinking != plan.shrinking:
        differences.append(f"{_told(found.shrinking)}, not {_told(plan.shrinking)}")
    if list(found.splits) != list(plan.splits):
        differences.append(f"the splits {', '.join(found.splits)}, not {', '.join(plan.splits)}")
    for name in found.splits.keys() & plan.splits.keys():
        old, new = found.splits[name], plan.splits[name]
        if old.fingerprint != new.fingerprint:
            differences.append(f"other images in {name!r}")
        if old.shard_count != new.shard_count:
            differences.append(f"{number_of(old.shard_count, 'shard')} of {name!r}, not {new.shard_count}")
    if differences:
        raise ValueError(f"output={str(output)!r} holds records with {'; '.join(differences)}. Name a new folder")
    return [shard for split in found.splits.values() for shard in split.shards]


def _told(shrinking: Shrinking | None) -> str:
    if shrinking is None:
        return "images of any size"
    return f"images shrunk to max_side={shrinking.max_side} with quality={shrinking.quality}"
