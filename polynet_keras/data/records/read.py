"""TFRecord files with access to records by index, in any order."""

import os
import struct
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf

from polynet_keras.basics.names import number_of
from polynet_keras.data.records.features import Features

HEADER = struct.Struct("<Q4x")
"""A record's length and the length's checksum, before its bytes; a checksum of four bytes comes after them."""
BUFFER_BYTES = 1 << 18
"""Bytes read from a file at once: enough for most photographs of ImageNet, with little waste."""


def record_offsets(path: str | os.PathLike) -> np.ndarray:
    """Returns the position of each record in an uncompressed TFRecord file: int64 array.

    It reads only the lengths, so that a file of many gigabytes takes seconds.

    Raises:
        ValueError: the file cannot be read, or ends within a record; the message names it.
    """
    offsets, position = [], 0
    try:
        with open(path, "rb", buffering=0) as file:
            size = os.fstat(file.fileno()).st_size
            while position < size:
                header = os.pread(file.fileno(), HEADER.size, position)
                length = HEADER.unpack(header)[0] if len(header) == HEADER.size else size
                offsets.append(position)
                position += HEADER.size + length + 4
    except OSError as error:
        raise ValueError(f"{os.fspath(path)}: cannot be read: {error.strerror}") from None
    if position != size:
        raise ValueError(
            f"{os.fspath(path)}: not a TFRecord file, or a compressed or cut one: its {len(offsets)}th record "
            f"would end at byte {position:,} of {size:,}"
        )
    return np.array(offsets, "int64")


def record_reader(
    paths: Sequence[str | os.PathLike], features: Features, classes: int
) -> tuple[int, Callable, Callable[[int], str]]:
    """Reads records by their index over all files.

    Args:
        paths: the files, in order.
        features: names of the parts of a record.
        classes: number of classes; a record with a label outside of them is an error that names it.

    Returns:
        The number of records; and `read` and `name_of` for `Examples`.

    Raises:
        ValueError: a file is damaged.
    """
    parts = [record_offsets(path) for path in paths]
    firsts = np.cumsum([0, *map(len, parts)])
    offsets = tf.constant(np.concatenate(parts), tf.int64)
    files = tf.constant(np.repeat(np.arange(len(paths)), np.diff(firsts)), tf.int64)
    names = tf.constant([os.fsencode(path) for path in paths])
    description = {
        features.image: tf.io.FixedLenFeature([], tf.string),
        features.label: tf.io.FixedLenFeature([], tf.int64),
    }

    def read(index: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        # TensorFlow's own reader verifies the checksums; started at the record, it reads one.
        records = tf.raw_ops.TFRecordDatasetV2(
            filenames=names[files[index]][tf.newaxis],
            compression_type="",
            buffer_size=tf.constant(BUFFER_BYTES, tf.int64),
            byte_offsets=offsets[index][tf.newaxis],
        )
        types = {"output_types": [tf.string], "output_shapes": [[]]}
        first = tf.raw_ops.TakeDataset(input_dataset=records, count=tf.constant(1, tf.int64), **types)
        (record,) = tf.raw_ops.DatasetToSingleElement(dataset=first, **types)
        values = tf.io.parse_single_example(record, description)
        label = values[features.label] - features.first_label
        in_range = tf.debugging.assert_equal(
            (label >= 0) & (label < classes),
            True,
            f"its label is not one of the {number_of(classes, 'class', 'classes')} from {features.first_label} on",
        )
        with tf.control_dependencies([in_range]):
            return tf.identity(values[features.image]), label

    def name_of(index: int) -> str:
        file = int(np.searchsorted(firsts, index, side="right")) - 1
        return f"{Path(paths[file]).name}, record {index - firsts[file]}"

    return int(firsts[-1]), read, name_of
