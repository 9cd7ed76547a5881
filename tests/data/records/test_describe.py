import pytest
import tensorflow as tf

from polynet_keras.cli.main import main
from polynet_keras.data.records.describe import describe_records
from polynet_keras.data.records.manifest import MANIFEST, verify_records
from polynet_keras.data.sources import open_source
from polynet_keras.data.unreadable import Unreadable, reading
from tests.data.arrays import png, random_images

IMAGES = [png(image) for image in random_images(12, size=8)]


def write(folder, labels, names=("train-00000-of-00002", "train-00001-of-00002", "validation-00000-of-00001")):
    """Records as tf-models writes them; four images a file."""
    for i, name in enumerate(names):
        with tf.io.TFRecordWriter(str(folder / name)) as writer:
            for encoded, label in list(zip(IMAGES, labels, strict=True))[4 * i : 4 * i + 4]:
                feature = {
                    "image/encoded": tf.train.Feature(bytes_list=tf.train.BytesList(value=[encoded])),
                    "image/class/label": tf.train.Feature(int64_list=tf.train.Int64List(value=[label])),
                }
                writer.write(tf.train.Example(features=tf.train.Features(feature=feature)).SerializeToString())


@pytest.mark.parametrize("first_label", [0, 1])
def test_labels_begin_where_it_is_said(tmp_path, first_label):
    write(tmp_path, [first_label + i % 3 for i in range(12)])
    manifest = describe_records(tmp_path, ("a", "b", "c"), first_label)
    assert {name: split.count for name, split in manifest.splits.items()} == {"train": 8, "validation": 4}
    assert not verify_records(tmp_path)
    source = open_source(tmp_path, seed=0)
    read = [(encoded, int(label)) for part in (source.training, source.held_out)
            for encoded, label, _ in part.dataset().as_numpy_iterator()]  # fmt: skip
    assert read == [(encoded, i % 3) for i, encoded in enumerate(IMAGES)]
    assert source.training.fingerprint != source.held_out.fingerprint


def test_labels_that_are_no_classes_are_refused(tmp_path):
    write(tmp_path, range(12))
    with pytest.raises(
        ValueError, match=r"train-00000-of-00002: record 0 has the label 0; 12 classes from first_label=1"
    ):
        describe_records(tmp_path, [str(i) for i in range(12)], 1)
    with pytest.raises(ValueError, match=r"validation-00000-of-00001: record 3 has the label 11; 11 classes"):
        describe_records(tmp_path, [str(i) for i in range(11)], 0)
    assert not (tmp_path / MANIFEST).exists()


def test_a_label_that_changed_since_is_named(tmp_path):
    """The files have the same sizes, so only reading can tell."""
    write(tmp_path, [i % 3 for i in range(12)])
    describe_records(tmp_path, ("a", "b", "c"), 0)
    write(tmp_path, [5] * 12)
    with pytest.raises(ValueError, match="its label is not one of the 3 classes from 0 on"), reading(Unreadable()):
        list(open_source(tmp_path, seed=0).training.dataset())


def test_what_cannot_be_described(tmp_path):
    with pytest.raises(ValueError, match="holds no records; expected files such as train-00000-of-01024"):
        describe_records(tmp_path, ("a", "b"), 0)
    write(tmp_path, [0] * 12)
    (tmp_path / "train-00001-of-00002").rename(tmp_path / "away")
    with pytest.raises(ValueError, match="holds 1 of 2 shards of 'train'"):
        describe_records(tmp_path, ("a", "b"), 0)
    (tmp_path / "away").rename(tmp_path / "train-00001-of-00002")
    content = bytearray((tmp_path / "train-00001-of-00002").read_bytes())
    content[100] ^= 1
    (tmp_path / "train-00001-of-00002").write_bytes(content)
    with pytest.raises(ValueError, match="train-00001-of-00002: record 0 cannot be read: corrupted record"):
        describe_records(tmp_path, ("a", "b"), 0)
    (tmp_path / MANIFEST).touch()
    with pytest.raises(ValueError, match=f"{MANIFEST} already exists"):
        describe_records(tmp_path, ("a", "b"), 0)


def test_command(tmp_path, capsys):
    write(tmp_path, range(1, 13))
    assert main(["records", "--describe", str(tmp_path), "--class_names=imagenet", "--first_label=1"]) == 0
    assert capsys.readouterr().out.startswith(f"{tmp_path}: 1,000 classes\ntrain: 8 images, 2 shards, ")
    assert open_source(tmp_path, seed=0).class_names[:2] == ("tench", "goldfish")
    for argv, message in (
        (["--describe", str(tmp_path)], "--describe needs --class_names (a file, or `imagenet`) and --first_label"),
        (["--describe", str(tmp_path), "--class_names=imagenet", "--first_label=2"], "--first_label, 0 or 1"),
        (["--describe", "--verify", str(tmp_path)], "--verify and --describe exclude each other"),
        (["a", "--output=b", "--first_label=1"], "--first_label is for --describe"),
    ):
        assert main(["records", *argv]) == 1
        assert message in capsys.readouterr().err
