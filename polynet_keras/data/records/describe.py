"""Makes a manifest for ImageNet's records of tf-models and others: counts, checks and describes them once."""

import os
import re
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from polynet_keras.basics.files import file_hash
from polynet_keras.basics.names import check_class_names, number_of
from polynet_keras.basics.tensorflow_errors import plain_message
from polynet_keras.data.records.features import Features
from polynet_keras.data.records.manifest import MANIFEST, Manifest, Shard, Split, fingerprint_of

SHARD_NAME = re.compile(r"(?:.*[-.])?(?P<split>[A-Za-z_]+)(?:\.tfrecord)?-(?P<number>\d{5})-of-(?P<of>\d{5})(?:\.\w+)?")
"""`train-00000-of-01024`, `imagenet2012-train.tfrecord-00000-of-01024`, `train-00000-of-00008.tfrecord`."""


def describe_records(folder: str | os.PathLike, class_names: Sequence[str], first_label: int) -> Manifest:
    """Writes a manifest beside records of another program, so that they can be opened as data.

    It reads every record: each must have `image/encoded`, and an `image/class/label` of one of the classes.

    Args:
        folder: folder of files such as `train-00000-of-01024` and `validation-00000-of-00128`.
        class_names: names by class.
        first_label: label of the first class in the records: 1 in the ImageNet of tf-models, whose 0 is background.

    Raises:
        ValueError: there are no records, shards are missing, one is damaged, labels are not of these classes, or a
            manifest already exists.

    Examples:
        >>> _ = write_records(photos, folder / "records", processes=1)
        >>> (folder / "records" / "manifest.json").unlink()  # other programs write none
        >>> manifest = describe_records(folder / "records", ["cat", "dog"], first_label=0)
        >>> manifest.splits["train"].count
        10
    """
    folder = Path(folder)
    check_class_names(class_names, "class_names")
    if (folder / MANIFEST).exists():
        raise ValueError(f"{folder / MANIFEST} already exists; remove it to describe the records anew")
    splits: dict[str, list[Path]] = {}
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if (match := SHARD_NAME.fullmatch(path.name)) and path.is_file():
            splits.setdefault(match["split"], []).append(path)
    if not splits:
        raise ValueError(f"{folder}: holds no records; expected files such as train-00000-of-01024")
    for name, paths in splits.items():
        due = int(SHARD_NAME.fullmatch(paths[0].name)["of"])  # type: ignore[index]
        if len(paths) != due:
            raise ValueError(f"{folder}: holds {len(paths)} of {number_of(due, 'shard')} of {name!r}")
    with tqdm(total=sum(map(len, splits.values())), unit=" shards", disable=None) as bar:
        described = {
            name: _split([_shard(path, len(class_names), first_label, bar) for path in paths])
            for name, paths in splits.items()
        }
    manifest = Manifest(tuple(class_names), seed=0, splits=described, first_label=first_label)
    manifest.save(folder / MANIFEST)
    return manifest


def _split(shards: list[Shard]) -> Split:
    return Split(fingerprint_of(shards), len(shards), tuple(shards))


def _shard(path: Path, classes: int, first_label: int, bar: tqdm) -> Shard:
    import tensorflow as tf

    features = Features()
    description = {
        features.image: tf.io.FixedLenFeature([], tf.string),
        features.label: tf.io.FixedLenFeature([], tf.int64),
    }
    count = 0
    try:
        for record in tf.data.TFRecordDataset(os.fsencode(path)):
            label = int(tf.io.parse_single_example(record, description)[features.label])
            if not first_label <= label < first_label + classes:
                raise ValueError(
                    f"{path}: record {count} has the label {label}; {number_of(classes, 'class', 'classes')} from "
                    f"first_label={first_label} "
                    f"are {first_label} to {first_label + classes - 1}"
                )
            count += 1
    except (tf.errors.DataLossError, tf.errors.InvalidArgumentError) as error:
        raise ValueError(f"{path}: record {count} cannot be read: {plain_message(error)}") from None
    bar.update()
    return Shard(path.name, count, path.stat().st_size, file_hash(path), {})
