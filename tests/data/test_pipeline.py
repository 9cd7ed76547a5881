import contextlib
import math
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from polynet_keras.data import decoding
from polynet_keras.data.augmentation import Augmentation
from polynet_keras.data.budget import Budget
from polynet_keras.data.pipeline import (
    decoded_images,
    evaluation_batches,
    training_batches,
    validation_data,
)
from polynet_keras.data.protocol import Preprocessing
from polynet_keras.data.sources import open_splits
from polynet_keras.data.unreadable import Unreadable, reading
from tests.data.arrays import examples_of, png, random_images
from tests.data.hostile import hostile_images

PREPROCESSING = Preprocessing(75, 86)
IMAGES = random_images()
EXAMPLES = examples_of([png(image) for image in IMAGES])
BROKEN = [b"no image" if i in (3, 4, 8) else png(image) for i, image in enumerate(IMAGES)]
REPEATED = Augmentation(policy="trivial_augment_wide", mixup=0.4, repeats=2)
EVERYTHING = Augmentation("random_resized", flip=True, color_jitter=0.4, erasing=0.5, mixup=0.4, cutmix=1.0)


@pytest.mark.parametrize(
    "preprocessing",
    [
        PREPROCESSING,
        pytest.param(Preprocessing(75, 86, resize="shorter_side", antialias=False), marks=pytest.mark.slow),
        pytest.param(Preprocessing(75, 86, interpolation="bicubic"), marks=pytest.mark.slow),
        pytest.param(
            Preprocessing(12, 15, mean=(0.4, 0.5, 0.6), std=(1 / 255,) * 3, channel_order="BGR"), marks=pytest.mark.slow
        ),
    ],
)
def test_evaluation_batches_are_the_protocol_image_by_image(preprocessing):
    batches = evaluation_batches(EXAMPLES, preprocessing, batch_size=4)
    images, labels, indices, valid = (np.concatenate(parts) for parts in zip(*batches.dataset, strict=True))
    assert batches.steps == 3
    assert valid.tolist() == [True] * 10 + [False] * 2
    assert indices[:10].tolist() == labels[:10].tolist() == list(range(10))
    assert images.dtype == "float32"
    for i in range(10):
        np.testing.assert_allclose(images[i], preprocessing(IMAGES[i]), atol=1e-5 * np.abs(images[i]).max())


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2, 7])
@pytest.mark.parametrize("batch_size", [3, 16])
def test_workers_evaluate_every_image_once_in_equal_full_batches(workers, batch_size):
    seen = []
    for worker in range(workers):
        batches = evaluation_batches(EXAMPLES, Preprocessing(4, 4), batch_size, workers=workers, worker=worker)
        parts = list(batches.dataset.as_numpy_iterator())
        assert [images.shape for images, *_ in parts] == [(batch_size, 4, 4, 3)] * batches.steps
        assert len(parts) == math.ceil(math.ceil(10 / workers) / batch_size)
        seen += [int(i) for _, _, indices, valid in parts for i in indices[valid]]
    assert sorted(seen) == list(range(10))


def test_validation_data_are_the_images_alone():
    parts = list(validation_data(evaluation_batches(EXAMPLES, PREPROCESSING, 4)).as_numpy_iterator())
    assert [len(images) for images, _ in parts] == [4, 4, 2]
    assert np.concatenate([labels for _, labels in parts]).tolist() == list(range(10))


def batches_of(count, augmentation=None, batch_size=4, seed=0, examples=EXAMPLES, **options):
    batches = training_batches(examples, PREPROCESSING, batch_size, seed, augmentation, **options)
    return list(batches.dataset.take(count).as_numpy_iterator())


def assert_same(a, b):
    assert len(a) == len(b)
    for x, y in zip(a, b, strict=True):
        for u, v in zip(x, y, strict=True):
            np.testing.assert_array_equal(u, v)


def test_training_batches_hold_every_example_once_an_epoch_in_another_order():
    assert training_batches(EXAMPLES, PREPROCESSING, 4, seed=0).steps == 3
    labels = [labels.tolist() for _, labels in batches_of(6)]
    assert [len(part) for part in labels] == [4, 4, 2, 4, 4, 2]
    first, second = sum(labels[:3], []), sum(labels[3:], [])  # noqa: RUF017
    assert sorted(first) == sorted(second) == list(range(10))
    assert first != second


@pytest.mark.slow
@pytest.mark.parametrize("augmentation", [Augmentation(), EVERYTHING, REPEATED], ids=["crop", "everything", "repeated"])
def test_a_batch_is_a_function_of_seed_and_step(augmentation):
    whole = batches_of(7, augmentation)
    assert_same(whole, batches_of(7, augmentation))
    for first_step in (1, 2, 4, 6):
        assert_same(whole[first_step:], batches_of(7 - first_step, augmentation, first_step=first_step))
    other = batches_of(1, augmentation, seed=1)
    assert not np.array_equal(whole[0][0], other[0][0])
    # Neither an image's crop nor its other distortions come again in the next epoch.
    assert all(not np.array_equal(x, y) for x in whole[0][0] for y in np.concatenate([b[0] for b in whole[3:6]]))


@pytest.mark.slow
@pytest.mark.parametrize("augmentation", [Augmentation(), EVERYTHING, REPEATED], ids=["crop", "everything", "repeated"])
@pytest.mark.parametrize("workers", [2, 3])
def test_workers_together_have_the_batches_of_one(augmentation, workers):
    """Also from a step on, where there was another number of them before."""
    alone = batches_of(6, augmentation, batch_size=12, examples=MANY, first_step=2)
    parts = [
        batches_of(6, augmentation, 12, examples=MANY, first_step=2, workers=workers, worker=worker)
        for worker in range(workers)
    ]
    together = [tuple(map(np.concatenate, zip(*step, strict=True))) for step in zip(*parts, strict=True)]
    assert_same(alone, together)


MANY = examples_of([png(image) for image in random_images(29, size=8)])


@pytest.mark.slow
def test_a_worker_may_have_nothing_of_the_last_batch():
    lengths = [
        [len(labels) for _, labels in batches_of(2, batch_size=9, workers=3, worker=worker)] for worker in (1, 2)
    ]
    assert lengths == [[3, 0], [3, 1]]


@pytest.mark.slow
def test_threads_change_nothing(monkeypatch):
    expected = batches_of(4, EVERYTHING)
    monkeypatch.setattr(tf.data, "AUTOTUNE", 1)
    assert_same(expected, batches_of(4, EVERYTHING))


@pytest.mark.slow
def test_mixed_labels_are_shares():
    for images, labels in batches_of(6, Augmentation(mixup=1.0, cutmix=1.0)):
        assert labels.shape == (len(images), 10)
        np.testing.assert_allclose(labels.sum(axis=1), 1, rtol=1e-6)
        assert ((labels > 0).sum(axis=1) <= 2).all()


@pytest.mark.slow
def test_channels_first():
    keras.config.set_image_data_format("channels_first")
    images, *_ = next(iter(evaluation_batches(EXAMPLES, PREPROCESSING, 4).dataset))
    assert images.shape == (4, 3, 75, 75)
    np.testing.assert_allclose(images[0], np.moveaxis(PREPROCESSING(IMAGES[0]), -1, 0), atol=1e-5)
    assert batches_of(1)[0][0].shape == (4, 3, 75, 75)


def test_decoded_images_are_whole():
    parts = list(decoded_images(EXAMPLES, workers=3, worker=1).dataset.as_numpy_iterator())
    assert [int(indices[0]) for *_, indices, _ in parts] == [3, 4, 5]
    for images, labels, indices, valid in parts:
        np.testing.assert_array_equal(images[0], IMAGES[indices[0]])
        assert labels == indices
        assert valid.all()


@pytest.mark.parametrize(
    "make",
    [
        # The fast tests of evaluations hold the other two.
        pytest.param(lambda *args, unread: evaluation_batches(*args, unreadable=unread), marks=pytest.mark.slow),
        lambda *args, unread: training_batches(*args, 0, unreadable=unread),
        pytest.param(lambda data, *_, unread: decoded_images(data, unreadable=unread), marks=pytest.mark.slow),
    ],
    ids=["evaluation", "training", "whole images"],
)
def test_an_unreadable_image_ends_the_pipeline_with_its_name(make):
    unreadable = Unreadable()
    batches = make(examples_of(BROKEN), PREPROCESSING, 2, unread=unreadable)
    with pytest.raises(ValueError, match=r"^image \d: cannot be read as an image"), reading(unreadable):
        list(batches.dataset.take(5))


@pytest.mark.slow
def test_the_unreadable_image_of_whichever_dataset_is_named():
    unreadable, other = Unreadable(), Unreadable()
    with pytest.raises(ValueError, match=r"^image \d: cannot be read as an image"), reading(other, unreadable):
        list(evaluation_batches(examples_of(BROKEN), PREPROCESSING, 2, unreadable=unreadable).dataset)


END = """
import sys, time
from polynet_keras.data import decoding, pipeline, sources
from polynet_keras.data.protocol import Preprocessing
from polynet_keras.data.unreadable import Unreadable, reading
decode = decoding.decode_image
def decode_image(encoded, channels, name, **options):
    if "good" in name:
        time.sleep(1)
    return decode(encoded, channels, name, **options)
decoding.decode_image = decode_image
examples = sources.open_splits("photos")["all"]
unreadable = Unreadable()
batches = pipeline.training_batches(examples, Preprocessing(75, 86), 1, 0, unreadable=unreadable)
def use():
    iterator = iter(batches.dataset)
    with reading(unreadable):
        while True:
            next(iterator)
{use}
"""
USES = {
    "of an error that nobody catches": "use()",
    "of an error that somebody keeps": """
def keep():
    try:
        use()
    except ValueError as error:
        print(error, file=sys.stderr)
        kept = [error]
        kept.append(kept)
keep()
sys.exit(1)
""",
}


@pytest.mark.slow
@pytest.mark.parametrize("use", USES.values(), ids=USES)
def test_a_process_ends_while_other_images_are_decoded(tmp_path, use):
    for name in ("cat", "dog"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        (tmp_path / "photos" / name / "bad.png").write_bytes(b"no image")
        for number in range(3):
            (tmp_path / "photos" / name / f"good{number}.png").write_bytes(png(IMAGES[0][..., 0]))
    program = END.format(use=use)
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 1, done.stderr
    assert "bad.png: cannot be read as an image" in done.stderr


def test_evaluation_marks_skipped_images():
    unreadable = Unreadable("skip")
    batches = evaluation_batches(examples_of(BROKEN), PREPROCESSING, 4, unreadable=unreadable)
    valid = np.concatenate([valid for *_, valid in batches.dataset])
    assert np.flatnonzero(valid).tolist() == [0, 1, 2, 5, 6, 7, 9]
    assert sorted(unreadable.skipped) == [3, 4, 8]
    assert unreadable.skipped[4].startswith("image 4: cannot be read")


def test_training_takes_the_next_image_for_a_skipped_one():
    examples = examples_of(BROKEN)
    unreadable = Unreadable("skip")
    labels = np.concatenate([labels for _, labels in batches_of(3, examples=examples, unreadable=unreadable)])
    assert sorted(labels) == [0, 1, 2, 5, 5, 5, 6, 7, 9, 9]
    assert sorted(unreadable.skipped) == [3, 4, 8]


CLASSES = [0, 1, 0, 1, 0, 1, 0, 1, 1, 2]


@pytest.mark.slow
def test_balanced_training_takes_the_next_image_of_the_class_for_a_skipped_one():
    """The classes stay equal in an epoch."""
    examples, unreadable = examples_of(BROKEN, CLASSES), Unreadable("skip")
    found = batches_of(6, examples=examples, unreadable=unreadable, sampling="balanced")
    assert sorted(unreadable.skipped) == [3, 4, 8]
    for epoch in (found[:3], found[3:]):
        assert sorted(np.bincount(np.concatenate([labels for _, labels in epoch]), minlength=3)) == [3, 3, 4]


@pytest.mark.slow
def test_balanced_training_takes_another_class_where_one_has_no_image():
    broken = [b"no image" if i == 9 else png(image) for i, image in enumerate(IMAGES)]
    found = batches_of(3, examples=examples_of(broken, CLASSES), unreadable=Unreadable("skip"), sampling="balanced")
    counts = np.bincount(np.concatenate([labels for _, labels in found]), minlength=3)
    assert counts[2] == 0
    assert counts.sum() == 10


@pytest.mark.slow
def test_skipping_ends_where_nothing_can_be_read():
    unreadable = Unreadable("skip")
    with pytest.raises(ValueError, match="100 images in a row cannot be read"), reading(unreadable):
        batches_of(1, examples=examples_of([b"no image"] * 10), unreadable=unreadable)


@pytest.mark.slow
def test_an_image_that_would_grow_too_large_is_named():
    narrow = np.zeros((2, 60_000, 3), "uint8")
    examples = examples_of([png(narrow)], names=["narrow.png"])
    unreadable = Unreadable()
    batches = evaluation_batches(examples, Preprocessing(75, 86, resize="shorter_side"), 1, unreadable=unreadable)
    with pytest.raises(ValueError, match=r"narrow\.png: 60000 x 2 px .* is too large"), reading(unreadable):
        list(batches.dataset)


@pytest.mark.slow
def test_files_that_cannot_be_read_are_under_the_policy(tmp_path, monkeypatch):
    """One that vanished and one that is too large, both among others."""
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for i in range(3):
            (tmp_path / name / f"{i}.png").write_bytes(png(IMAGES[0]))
    monkeypatch.setattr("polynet_keras.data.sources.MAX_ENCODED_BYTES", 100_000)
    (tmp_path / "a" / "1.png").write_bytes(png(IMAGES[0]) + bytes(100_000))
    examples = open_splits(tmp_path)["all"]
    (tmp_path / "b" / "2.png").unlink()
    unreadable = Unreadable("skip")
    valid = np.concatenate(
        [v for *_, v in evaluation_batches(examples, PREPROCESSING, 3, unreadable=unreadable).dataset]
    )
    assert valid.tolist() == [True, False, True, True, True, False]
    assert "a/1.png: cannot be read: " in unreadable.skipped[1]
    assert "it has more than 100,000 bytes" in unreadable.skipped[1]
    assert "No such file" in unreadable.skipped[5]
    unreadable = Unreadable()
    # Several are read at once: whichever of the two is met first.
    message = r"(a/1\.png: cannot be read: it has more than|b/2\.png: cannot be read: .* No such file)"
    with pytest.raises(ValueError, match=message), reading(unreadable):
        list(evaluation_batches(examples, PREPROCESSING, 3, unreadable=unreadable).dataset)


@pytest.mark.slow
def test_validation_data_have_no_empty_batch():
    examples = examples_of([b"", b"", png(IMAGES[0]), b""])
    batches = evaluation_batches(examples, PREPROCESSING, 2, unreadable=Unreadable("skip"))
    assert [len(labels) for _, labels in validation_data(batches)] == [1]


@pytest.mark.slow
@pytest.mark.parametrize("crop", [None, "random", "random_resized"])
def test_large_images_take_turns_and_are_the_same(monkeypatch, crop):
    """Where every image is large: the same batches, and never two in work that are more than the budget."""
    encoded = [png(image) for image in random_images(5)] + [
        image.encoded for image in hostile_images() if image.name in ("orientation_6.jpg", "cmyk.jpg", "half.jpg")
    ]
    protocol = Preprocessing(16, 18, resize="shorter_side")

    def batches():
        unreadable = Unreadable("skip")
        examples = examples_of(encoded)
        if crop is None:
            found = list(evaluation_batches(examples, protocol, 4, unreadable=unreadable).dataset)
        else:
            made = training_batches(examples, protocol, 4, 0, Augmentation(crop), unreadable=unreadable)
            found = list(made.dataset.take(made.steps))
        return [part.numpy() for batch in found for part in batch], unreadable.skipped

    class Watched(Budget):
        pieces = most = 0

        @contextlib.contextmanager
        def held(self, amount):
            with super().held(amount):
                self.pieces += 1
                self.most = max(self.most, self._total - self._free)
                yield

    expected, skipped = batches()
    watched = Watched(4000)
    monkeypatch.setattr(decoding, "LARGE_PIXELS", 100)
    monkeypatch.setattr(decoding, "IN_WORK", watched)
    found, skipped_too = batches()
    assert watched.pieces >= len(encoded)
    assert watched.most <= 4000
    assert skipped_too == skipped != {}
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)
