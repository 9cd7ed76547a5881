"""Datasets that tensorflow-datasets prepares, in an environment that has it."""

import re

import numpy as np
import pytest
import tensorflow as tf

pytest.importorskip("tensorflow_datasets")

import tensorflow_datasets as tfds

from polynet_keras.data.pipeline import evaluation_batches
from polynet_keras.data.protocol import Preprocessing
from polynet_keras.data.sources import open_source, open_splits
from polynet_keras.data.unreadable import Unreadable

CLASSES = ["bee", "ant"]
COUNTS = {"train": 14, "test": 6}
IMAGE = tfds.features.Image(shape=(None, None, 3), encoding_format="png")
LABEL = tfds.features.ClassLabel(names=CLASSES)


def pixels_of(split, i, channels=3):
    rng = np.random.default_rng([i, len(split)])
    return rng.integers(0, 256, (5 + i, 9, channels)).astype("uint8")


def prepare(folder, features, example, config=None, **options):
    """Writes a dataset `tiny_pictures` into a folder and makes tensorflow-datasets look there.

    Args:
        folder: the data_dir.
        features: of an example.
        example: from a split and an index to an example.
        config: name of a configuration, if it has one.
        options: `file_format`, or `num_shards` of each split.
    """
    shards = options.pop("num_shards", None)

    class TinyPictures(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        VERSION = tfds.core.Version("1.2.0")
        BUILDER_CONFIGS = [tfds.core.BuilderConfig(name=config)] if config else []
        name = "tiny_pictures"

        def _info(self):
            return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

        def _split_generators(self, manager):
            return {split: self._generate_examples(split) for split in COUNTS}

        def _generate_examples(self, split):
            for i in range(COUNTS[split]):
                yield i, example(split, i)

    builder = TinyPictures(data_dir=folder, **options)
    builder.download_and_prepare(download_config=tfds.download.DownloadConfig(num_shards=shards))
    return builder


@pytest.fixture
def folder(tmp_path):
    tfds.core.add_data_dir(tmp_path)
    yield tmp_path
    tfds.core.utils.file_utils.clear_registered_data_dirs()


def labelled(split, i):
    return {"image": pixels_of(split, i), "label": CLASSES[i % 2], "note": f"{split} {i}"}


FEATURES = {"image": IMAGE, "label": LABEL, "note": tfds.features.Text()}


@pytest.mark.parametrize("num_shards", [None, 3])
def test_examples_are_those_that_were_written_in_the_order_of_tensorflow_datasets(folder, num_shards):
    builder = prepare(folder, FEATURES, labelled, num_shards=num_shards)
    splits = open_splits("tfds:tiny_pictures")
    assert {split: len(examples) for split, examples in splits.items()} == COUNTS
    one_file_after_the_other = tfds.ReadConfig(interleave_cycle_length=1)
    for split, examples in splits.items():
        assert (examples.name, examples.channels) == (f"tfds:tiny_pictures/1.2.0, {split}", 3)
        assert examples.class_names == ("bee", "ant")
        written = {(f"{split} {i}"): (pixels_of(split, i), i % 2) for i in range(COUNTS[split])}
        for i, example in enumerate(builder.as_dataset(split=split, read_config=one_file_after_the_other)):
            pixels, label = written.pop(example["note"].numpy().decode())
            np.testing.assert_array_equal(examples.image(i), pixels)
            assert examples.label(i) == label
        assert not written
        files = {examples.name_of(i).split(",")[0] for i in range(len(examples))}
        assert len(files) == (num_shards or 1)
        assert all(re.fullmatch(rf"tiny_pictures-{split}\.tfrecord-0000\d-of-0000\d", file) for file in files)


def test_a_version_and_a_configuration_can_be_named(folder):
    prepare(folder, FEATURES, labelled, config="small")
    for name in ("tiny_pictures/small", "tiny_pictures/small:1.2.0"):
        assert open_splits(f"tfds:{name}")["test"].name == "tfds:tiny_pictures/small/1.2.0, test"


def test_jpegs_of_other_keys_and_one_channel(folder):
    features = {
        "scan": tfds.features.Image(shape=(None, None, 1), encoding_format="jpeg"),
        "digit": tfds.features.ClassLabel(num_classes=6),
    }
    ramp = np.linspace(0, 255, 40 * 30).reshape(40, 30, 1).astype("uint8")  # JPEG keeps it but for rounding
    prepare(folder, features, lambda split, i: {"scan": np.roll(ramp, 40 * i), "digit": i % 6})
    examples = open_splits("tfds:tiny_pictures")["test"]
    assert examples.class_names == tuple("012345")
    assert examples.channels == 1
    for i in range(6):
        label = examples.label(i)
        assert examples.read(tf.constant(i, tf.int64))[0].numpy().startswith(b"\xff\xd8")
        np.testing.assert_allclose(examples.image(i), np.roll(ramp, 40 * label), atol=6)
    assert {examples.label(i) for i in range(6)} == set(range(6))


def test_images_without_a_declared_shape_are_rgb(folder):
    grey = {"image": tfds.features.Image(shape=(None, None, None)), "label": LABEL}
    prepare(folder, grey, lambda split, i: {"image": pixels_of(split, i, 1), "label": 0})
    examples = open_splits("tfds:tiny_pictures")["test"]
    assert examples.channels == 3
    found = examples.image(0)
    assert any(np.array_equal(found, pixels_of("test", i, 1).repeat(3, -1)) for i in range(6))


def test_they_go_through_the_pipeline(folder):
    prepare(folder, FEATURES, labelled, num_shards=2)
    source = open_source("tfds:tiny_pictures", seed=0)
    assert (len(source.training), len(source.held_out)) == (14, 6)
    preprocessing = Preprocessing(12, 14)
    batches = evaluation_batches(source.held_out, preprocessing, 4, unreadable=Unreadable())
    images, labels, _, valid = (np.concatenate(part) for part in zip(*batches.dataset.as_numpy_iterator(), strict=True))
    for i in range(6):
        assert valid[i]
        assert labels[i] == source.held_out.label(i)
        np.testing.assert_allclose(images[i], preprocessing(source.held_out.image(i)), atol=1e-5)


def test_the_fingerprint_is_that_of_the_data(tmp_path):
    def fingerprints(folder, example):
        folder.mkdir()
        prepare(folder, FEATURES, example)
        tfds.core.add_data_dir(folder)
        try:
            splits = open_splits("tfds:tiny_pictures")
        finally:
            tfds.core.utils.file_utils.clear_registered_data_dirs()
        return [splits[split].fingerprint for split in COUNTS]

    first, again = (fingerprints(tmp_path / name, labelled) for name in "ab")
    other = fingerprints(tmp_path / "c", lambda split, i: labelled(split, i) | {"note": "another length"})
    assert first == again
    assert len({*first, *other}) == 4
    assert all(re.fullmatch("[0-9a-f]{64}", digits) for digits in first)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("no_such_data", r"^tfds:no_such_data: Dataset no_such_data not found\.$"),
        ("mnist:9.9.9", r"^tfds:mnist:9.9.9: .*cannot be loaded at version 9.9.9, only: [\d.]+$"),
        ("mnist/large", r"^tfds:mnist/large: .*BuilderConfig large not found"),
        ("a b", r"^tfds:a b: Parsing builder name string a b failed"),
        ("", r"^tfds:: Parsing builder name string"),
        ("huggingface:mnist", r"^tfds:huggingface:mnist: No module named"),
    ],
)
def test_unknown_names_are_refused(name, message):
    with pytest.raises(ValueError, match=message) as refused:
        open_splits(f"tfds:{name}")
    assert "\n" not in str(refused.value)


def test_what_is_not_prepared_is_not_downloaded(monkeypatch, tmp_path):
    def download(*_, **__):
        raise AssertionError("downloads")

    monkeypatch.setattr(tfds.core.DatasetBuilder, "download_and_prepare", download)
    with pytest.raises(ValueError, match=r"mnist/3.0.1 holds no prepared dataset; prepare it with `tfds build mnist`"):
        open_splits("tfds:mnist")


@pytest.mark.parametrize(
    ("features", "message"),
    [
        ({"image": IMAGE}, r"must have one Image and one ClassLabel; they have image \(Image\)$"),
        (
            {"image": IMAGE, "mask": IMAGE, "label": LABEL},
            r"they have image \(Image\), label \(ClassLabel\), mask \(Image\)$",
        ),
        ({"image": IMAGE, "labels": tfds.features.Sequence(LABEL)}, r"they have image \(Image\), labels \(Sequence\)$"),
        (
            {"image": tfds.features.Image(shape=(None, None, 1), dtype=np.uint16), "label": LABEL},
            r"its images are uint16, any x any x 1; only uint8 with 1, 3, 4 channels is read",
        ),
    ],
)
def test_other_features_are_refused(folder, features, message):
    def example(split, i):
        dtype = features["image"].np_dtype
        made = {"image": pixels_of(split, i, features["image"].shape[-1]).astype(dtype), "mask": pixels_of(split, i)}
        made |= {"label": 0, "labels": [0, 1]}
        return {key: made[key] for key in features}

    prepare(folder, features, example)
    with pytest.raises(ValueError, match=r"^tfds:tiny_pictures: " + ".*" + message):
        open_splits("tfds:tiny_pictures")


def test_another_file_format_is_refused(folder):
    prepare(folder, FEATURES, labelled, file_format="array_record")
    with pytest.raises(
        ValueError, match=r"files are array_record, .*`tfds build tiny_pictures --file_format=tfrecord`$"
    ):
        open_splits("tfds:tiny_pictures")


def test_a_split_without_labels_is_left_out(folder):
    prepare(folder, FEATURES, lambda split, i: labelled(split, i) | ({"label": -1} if split == "test" else {}))
    assert "test" not in open_splits("tfds:tiny_pictures")
