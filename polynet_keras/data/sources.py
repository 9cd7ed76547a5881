"""Sources of labelled images, by the name or the folder that a user gives."""

import dataclasses
import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf

from polynet_keras.basics.extras import require_extra
from polynet_keras.basics.names import shown
from polynet_keras.data.examples import Examples, Source, hold_out, with_validation
from polynet_keras.data.fashion_mnist import CLASSES, load_fashion_mnist
from polynet_keras.data.image_headers import MAX_ENCODED_BYTES
from polynet_keras.data.labelled_files import LabelledFiles, warn_of_untrained
from polynet_keras.data.listing import list_images
from polynet_keras.data.records.manifest import MANIFEST
from polynet_keras.data.source_names import DIGITS, FASHION_MNIST, TFDS, check_data, has_name
from polynet_keras.data.splits import (
    HELD_OUT_SPLITS,
    SPELLINGS,
    TRAINING,
    WHOLE,
    find_split,
    split_named,
    split_of,
    validation_split,
)
from polynet_keras.data.tables import is_table


def open_splits(data: str | os.PathLike, layout: str = "auto") -> dict[str, Examples]:
    """Opens data with its own splits.

    Args:
        data: `"digits"`, `"fashion_mnist"`; a folder with one folder of images per class, or with such folders for
            each split; a table of such images (`data.tables.list_table`); a folder of TFRecords with a manifest, made
            by `polynet records`; or `"tfds:NAME"`, a dataset that tensorflow-datasets has prepared.
        layout: meaning of the folders in a folder of images: `"classes"`, `"splits"`, or `"auto"` to decide by their
            names.

    Returns:
        Examples by the split's name; data without splits has one, `"all"`.

    Raises:
        ValueError: there is no such data; the message says what was expected.
    """
    data = os.fspath(data)
    check_data("data", data, layout)
    if not has_name(data) and (is_table(data) or not Path(data, MANIFEST).is_file()):
        return image_files(data, layout)
    if data == DIGITS:
        return {WHOLE: digits()}
    if data == FASHION_MNIST:
        return fashion_mnist()
    if data.startswith(TFDS):
        from polynet_keras.data.tfds_source import tfds_splits

        return tfds_splits(data.removeprefix(TFDS))
    from polynet_keras.data.records.source import record_splits

    return record_splits(data)


def open_source(
    data: str | os.PathLike, seed: int, layout: str = "auto", validation_share: float | None = None
) -> Source:
    """Opens data for training: its training split, its held-out split, and optionally one that chooses the best epoch.

    The log reports classes without training images.

    Args:
        data: as in `open_splits`.
        seed: seed of the split for data without splits: a fifth of each class is held out.
        layout: as in `open_splits`.
        validation_share: share of each class's training images that chooses the best epoch, drawn with the seed; 0 for
            none. By default the split `val` of data that has a split `test` or `held_out` too, else none.

    Raises:
        ValueError: there is no such data, its splits have other names, a class is too small to be split, or a share is
            given for data that has its own split for it.

    Examples:
        >>> source = open_source(photos, seed=0)
        >>> source.class_names, len(source.training), len(source.held_out)
        (('cat', 'dog'), 8, 2)
    """
    splits = open_splits(data, layout)
    if len(splits) == 1 and split_of(next(iter(splits))) not in HELD_OUT_SPLITS:
        source = hold_out(next(iter(splits.values())), seed)
    else:
        training = find_split(splits, TRAINING)
        held_out = next((name for split in HELD_OUT_SPLITS if (name := find_split(splits, split))), None)
        if training is None or held_out is None:
            spellings = (name for split in HELD_OUT_SPLITS for name in SPELLINGS[split])
            raise ValueError(
                f"data={os.fspath(data)!r} has the splits {', '.join(splits)}; expected one of "
                f"{', '.join(SPELLINGS[TRAINING])} and one of {', '.join(spellings)}"
            )
        validation = validation_split(splits) if validation_share != 0 else None
        if validation is not None and validation_share:
            raise ValueError(
                f"validation_share={validation_share:g}: data={os.fspath(data)!r} has the split {validation} to choose "
                f"the best epoch by, beside {held_out}; leave the share out, or move {validation} into {training}"
            )
        unused = {name: splits[name] for name in splits if name not in (training, held_out, validation)}
        chosen_by = None if validation is None else splits[validation]
        source = Source(splits[training], splits[held_out], unused=unused, validation=chosen_by)
    if validation_share:
        source = with_validation(source, validation_share, seed)
    if source.training.labels is not None:
        warn_of_untrained(source.class_names, source.training.labels, f"data={os.fspath(data)!r}")
    return source


def open_split(data: str | os.PathLike, split: str | None = None, layout: str = "auto") -> Examples:
    """Opens one split of data for evaluation.

    Args:
        data: as in `open_splits`.
        split: its name, in any spelling; by default the held-out split, or all of data without splits.
        layout: as in `open_splits`.

    Raises:
        ValueError: there is no such data or split.

    Examples:
        >>> open_split(photos).class_names
        ('cat', 'dog')
        >>> len(open_split("digits"))
        1797
    """
    splits = open_splits(data, layout)
    return splits[split_named(splits, split, data)]


def digits() -> Examples:
    """Opens the 1,797 handwritten digits that ship with scikit-learn: scans of 8 x 8 px, grey, ink bright on black.

    Source: E. Alpaydin and C. Kaynak, "Optical Recognition of Handwritten Digits", UCI Machine Learning Repository,
    1998: its test set, of 13 writers.
    """
    require_extra("data", "sklearn")
    from sklearn.datasets import load_digits

    bunch = load_digits()
    scans = np.round(bunch.images * (255 / 16)).astype("uint8")  # stored as 0..16
    return _from_arrays(DIGITS, scans, bunch.target, tuple(map(str, bunch.target_names)), "digit-{:04d}")


def fashion_mnist() -> dict[str, Examples]:
    """Opens Fashion-MNIST's 60,000 training and 10,000 test images; see `load_fashion_mnist`."""
    return {
        split: _from_arrays(f"{FASHION_MNIST}, {split}", *part, CLASSES, split + "-{:05d}")
        for split, part in zip(("train", "test"), load_fashion_mnist(), strict=True)
    }


def _from_arrays(name: str, images: np.ndarray, labels: np.ndarray, class_names: Sequence[str], names: str) -> Examples:
    """Makes examples from grey images in memory: uint8 array (count, height, width)."""
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


def image_files(data: str | os.PathLike, layout: str = "auto") -> dict[str, Examples]:
    """Opens RGB images from a folder with one folder per class, or with such folders per split, or from a table.

    Raises:
        ValueError: as `listing.list_images`.
    """
    return {split: _from_files(data, split, listed) for split, listed in list_images(data, WHOLE, None, layout).items()}


def unlabelled_files(paths: Sequence[str], sizes: Sequence[int], class_names: Sequence[str], channels: int) -> Examples:
    """Makes examples from image files of unknown class: their label is 0.

    Args:
        paths: paths of the files.
        sizes: sizes of the files, in bytes.
        class_names: names of the possible classes.
        channels: channels of every decoded image.
    """
    labels = np.zeros(len(paths), "int64")
    listed = LabelledFiles(Path(), tuple(class_names), tuple(paths), labels, np.array(sizes, "int64"))
    return dataclasses.replace(_from_paths("image files", listed, paths), channels=channels)


def _from_files(data: str | os.PathLike, split: str, listed: LabelledFiles) -> Examples:
    name = shown(data) if split == WHOLE else f"{shown(data)}, {split}"
    return _from_paths(name, listed, [os.path.join(listed.folder, path) for path in listed.paths])


def _from_paths(name: str, listed: LabelledFiles, paths: Sequence[str]) -> Examples:
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
        name=name,
        class_names=listed.class_names,
        channels=3,
        count=len(paths),
        read=read,
        name_of=paths.__getitem__,
        fingerprint=listed.fingerprint,
        labels=listed.labels,
        file_sizes=listed.sizes,
    )
