import sys

import pytest
import tensorflow as tf

from polynet_keras.data.records.features import Features
from polynet_keras.data.records.read import record_reader
from polynet_keras.data.sources import open_splits
from polynet_keras.data.tfds_source import _has_labels


def test_without_tensorflow_datasets_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    with pytest.raises(ValueError, match=r"for tfds:mnist; pip install tensorflow-datasets, or the extra"):
        open_splits("tfds:mnist")


@pytest.mark.parametrize("label", [0, 1, -1])
def test_a_split_without_labels_is_told_by_its_first_record(tmp_path, label):
    """ImageNet's test images have the label -1; they would be held out."""
    features = {
        "image": tf.train.Feature(bytes_list=tf.train.BytesList(value=[b""])),
        "label": tf.train.Feature(int64_list=tf.train.Int64List(value=[label])),
    }
    example = tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString()
    with tf.io.TFRecordWriter(str(tmp_path / "records")) as writer:
        writer.write(example)
    _, read, _ = record_reader([tmp_path / "records"], Features("image", "label"), 2)
    assert _has_labels(read) == (label >= 0)
