"""Datasets that tensorflow-datasets has prepared: its TFRecord files, with access to records by index."""

import hashlib
import importlib.util
import os
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from polynet_keras.basics.names import check_class_names, size_text
from polynet_keras.basics.news import tell
from polynet_keras.data.examples import Examples
from polynet_keras.data.image_files import CHANNELS
from polynet_keras.data.records.features import Features
from polynet_keras.data.records.read import record_reader

NAMING_ERRORS = (ValueError, AssertionError, ImportError)
"""Errors of tensorflow-datasets for an unknown dataset, configuration or version, or for a dataset whose code needs a
missing package."""


def tfds_splits(name: str) -> dict[str, Examples]:
    """Opens a dataset of images with one label each, that `tfds build` has prepared; nothing is downloaded.

    The search folders are those of tensorflow-datasets: the one in the environment variable TFDS_DATA_DIR, else
    ~/tensorflow_datasets.

    Args:
        name: as in `tfds.load`: `"mnist"`, `"mnist:3.0.1"`, or with a configuration, `"name/config:version"`.

    Returns:
        Examples by the split's name; splits without examples are left out.

    Raises:
        ValueError: tensorflow-datasets is not installed, there is no such dataset, it is not prepared, it has another
            file format, or its examples are not an image with a label.
    """
    if importlib.util.find_spec("tensorflow_datasets") is None:
        raise ValueError(
            f"not installed: tensorflow-datasets, for tfds:{name}; pip install tensorflow-datasets, or the extra "
            "`model-garden`, which brings it"
        )
    import tensorflow_datasets as tfds

    try:
        builder = tfds.builder(name, try_gcs=False)
    except NAMING_ERRORS as error:
        raise ValueError(f"tfds:{name}: {str(error).strip().splitlines()[0]}") from None
    if not builder.is_prepared():
        raise ValueError(
            f"tfds:{name}: {builder.data_dir} holds no prepared dataset; prepare it with `tfds build {name}`, or with "
            f"tfds.load({name!r}) in Python; TFDS_DATA_DIR names the folder where it is"
        )
    info = builder.info
    if info.file_format != tfds.core.FileFormat.TFRECORD:
        raise ValueError(
            f"tfds:{name}: its files are {info.file_format.value}, and tfrecord is read here; prepare it again with "
            f"`tfds build {name} --file_format=tfrecord`"
        )
    image, label = _image_and_label(name, info.features)
    classes = tuple(info.features[label].names)
    check_class_names(classes, f"tfds:{name}")
    splits = {}
    for split, about in info.splits.items():
        if not about.num_examples:
            continue
        paths = [os.fspath(path) for path in about.filepaths]
        count, read, name_of = record_reader(paths, Features(image, label), len(classes))
        if not _has_labels(read):
            tell("tfds:%s: the split %s is left out: its first image has no label", name, split)
            continue
        # The version identifies the content; sizes show other files under the same version. Names of files contain the
        # split's name.
        sizes = [f"{os.path.basename(path)} {os.path.getsize(path)}" for path in paths]
        identity = "\n".join([info.full_name, *sizes, *classes])
        splits[split] = Examples(
            name=f"tfds:{info.full_name}, {split}",
            class_names=classes,
            channels=info.features[image].shape[-1] or 3,
            count=count,
            read=read,
            name_of=name_of,
            fingerprint=hashlib.sha256(identity.encode()).hexdigest(),
        )
    return splits


def _has_labels(read: Callable) -> bool:
    """Whether the first image of a split has one of the classes: ImageNet's test images have none."""
    try:
        read(tf.constant(0, tf.int64))
    except tf.errors.OpError as error:  # training reports damaged examples
        return "its label is not one of" not in error.message
    return True


def _image_and_label(name: str, features) -> tuple[str, str]:
    """Returns the names of the image and the label of an example."""
    import tensorflow_datasets as tfds

    images, labels = (
        [key for key, feature in features.items() if isinstance(feature, kind)]
        for kind in (tfds.features.Image, tfds.features.ClassLabel)
    )
    if len(images) != 1 or len(labels) != 1:
        found = ", ".join(sorted(f"{key} ({type(feature).__name__})" for key, feature in features.items()))
        raise ValueError(f"tfds:{name}: its examples must have one Image and one ClassLabel; they have {found}")
    image = features[images[0]]
    if image.np_dtype != np.uint8 or image.shape[-1] not in (None, *CHANNELS):
        raise ValueError(
            f"tfds:{name}: its images are {np.dtype(image.np_dtype)}, {size_text(image.shape)}; only uint8 with "
            f"{', '.join(map(str, CHANNELS))} channels is read"
        )
    return images[0], labels[0]
