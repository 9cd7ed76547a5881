"""Sources: where labelled images come from, by the name or the folder that a user gives."""

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf

from polynet_keras.basics.extras import require_extra
from polynet_keras.basics.names import shown
from polynet_keras.data.examples import Examples, Source, hold_out
from polynet_keras.data.fashion_mnist import CLASSES, FASHION_MNIST, load_fashion_mnist
from polynet_keras.data.folders import EXPECTED, ClassFolder, list_splits
from polynet_keras.data.image_headers import MAX_ENCODED_BYTES
from polynet_keras.data.records.manifest import MANIFEST

DIGITS = "digits"
BUILT_IN = (DIGITS, FASHION_MNIST)
"""The sources that have a name; all others are folders, or `tfds:NAME`."""
TFDS = "tfds:"
TRAINING_SPLITS = ("train", "training")
HELD_OUT_SPLITS = ("val", "validation", "held_out", "test")
"""What the held-out part is called in data that has splits of its own: the first of these that is there."""
WHOLE = "all"
"""The one split of data that has none."""


def open_splits(data: str | os.PathLike) -> dict[str, Examples]:
    """Opens data with the splits that it has.

    Args:
        data: `"digits"`, `"fashion_mnist"`; a folder with one folder of images a class, or with such folders for each
            split; a folder of TFRecords with a manifest, as `polynet records` leaves it; or `"tfds:NAME"`, a dataset
            that tensorflow-datasets has prepared.

    Returns:
        Examples by the split's name; data without splits has one, `"all"`.

    Raises:
        ValueError: no such data; the message says what was expected.
    """
    data = os.fspath(data)
    if data == DIGITS:
        return {WHOLE: digits()}
    if data == FASHION_MNIST:
        return fashion_mnist()
    if data.startswith(TFDS):
        from polynet_keras.data.tfds_source import tfds_splits

        return tfds_splits(data.removeprefix(TFDS))
    if not os.path.isdir(data):
        named = ", ".join(map(repr, BUILT_IN))
        raise ValueError(
            f"data={data!r} is no folder; expected {named}, '{TFDS}NAME', a folder of records, or {EXPECTED}"
        )
    if Path(data, MANIFEST).is_file():
        from polynet_keras.data.records.source import record_splits

        return record_splits(data)
    return image_folder(data)


def open_source(data: str | os.PathLike, seed: int) -> Source:
    """Opens data to train on: its training split, and its held-out one.

    Args:
        data: as `open_splits` takes it.
        seed: of the split, where the data has none: a fifth of each class is held out.

    Raises:
        ValueError: no such data, splits of other names, or a class that is too small to be split.
    """
    splits = open_splits(data)
    if len(splits) == 1 and not splits.keys() <= set(HELD_OUT_SPLITS):
        return hold_out(next(iter(splits.values())), seed)
    training, held_out = (
        next((splits[name] for name in names if name in splits), None) for names in (TRAINING_SPLITS, HELD_OUT_SPLITS)
    )
    if training is None or held_out is None:
        raise ValueError(
            f"data={os.fspath(data)!r} has the splits {', '.join(splits)}; expected one of "
            f"{', '.join(TRAINING_SPLITS)} and one of {', '.join(HELD_OUT_SPLITS)}"
        )
    return Source(training, held_out)


def open_split(data: str | os.PathLike, split: str | None = None) -> Examples:
    """Opens one split of data to evaluate on.

    Args:
        data: as `open_splits` takes it.
        split: its name; by default the held-out one, or all of data that has no splits.

    Raises:
        ValueError: no such data or split.
    """
    splits = open_splits(data)
    wanted = (split,) if split else (*HELD_OUT_SPLITS, WHOLE)
    for name in wanted:
        if name in splits:
            return splits[name]
    raise ValueError(f"data={os.fspath(data)!r} has no split {' or '.join(wanted)}; it has {', '.join(splits)}")


def digits() -> Examples:
    """The 1,797 handwritten digits that ship with scikit-learn: scans of 8 × 8 px, grey, ink bright on black.

    Source: E. Alpaydin and C. Kaynak, "Optical Recognition of Handwritten Digits", UCI Machine Learning Repository,
    1998: its test set, of 13 writers.
    """
    require_extra("data", "sklearn")
    from sklearn.datasets import load_digits

    bunch = load_digits()
    scans = np.round(bunch.images * (255 / 16)).astype("uint8")  # stored as 0..16
    return _from_arrays(DIGITS, scans, bunch.target, tuple(map(str, bunch.target_names)), "digit-{:04d}")


def fashion_mnist() -> dict[str, Examples]:
    """Fashion-MNIST's 60,000 training and 10,000 test images; see `load_fashion_mnist`."""
    return {
        split: _from_arrays(f"{FASHION_MNIST}, {split}", *part, CLASSES, split + "-{:05d}")
        for split, part in zip(("train", "test"), load_fashion_mnist(), strict=True)
    }


def _from_arrays(name: str, images: np.ndarray, labels: np.ndarray, class_names: Sequence[str], names: str) -> Examples:
    """Grey images that are in memory: uint8 array (count, height, width)."""
    digest = hashlib.sha256(images.tobytes() + labels.astype("uint8").tobytes())
    pixels, labels = tf.constant(images[..., np.newaxis]), labels.astype("int64")
    label_of = tf.constant(labels)
    return Examples(
        name=name,
        class_names=tuple(class_names),
        channels=1,
        count=len(labels),
        read=lambda index: (tf.io.encode_png(pixels[index], compression=0), label_of[index]),
        name_of=names.format,
        fingerprint=digest.hexdigest(),
        labels=labels,
    )


def image_folder(folder: str | os.PathLike) -> dict[str, Examples]:
    """Opens a folder with one folder of images a class, or with such folders for each split; RGB.

    Raises:
        ValueError: as `folders.list_splits`.
    """
    return {split: _from_folder(split, listed) for split, listed in list_splits(folder, WHOLE).items()}


def _from_folder(split: str, listed: ClassFolder) -> Examples:
    paths = [os.path.join(listed.folder, path) for path in listed.paths]
    # Names of files are bytes: those of old archives are in other encodings than UTF-8.
    files, labels, sizes = (
        tf.constant([os.fsencode(path) for path in paths]),
        tf.constant(listed.labels),
        tf.constant(listed.sizes),
    )

    def read(index: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        small = tf.debugging.assert_less_equal(
            sizes[index], tf.constant(MAX_ENCODED_BYTES, tf.int64), f"it has more than {MAX_ENCODED_BYTES:,} bytes"
        )
        with tf.control_dependencies([small]):
            return tf.io.read_file(files[index]), labels[index]

    return Examples(
        name=shown(listed.folder) if split == WHOLE else f"{shown(listed.folder)}, {split}",
        class_names=listed.class_names,
        channels=3,
        count=len(paths),
        read=read,
        name_of=paths.__getitem__,
        fingerprint=listed.fingerprint,
        labels=listed.labels,
        are_files=True,
    )
