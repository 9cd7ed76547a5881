"""Batches of features come in the order in which batches of images would come."""

import numpy as np
import pytest

from polynet_keras.data.augmentation import Augmentation
from polynet_keras.data.pipeline import evaluation_batches, images_once, training_batches, training_order
from polynet_keras.data.protocol import Preprocessing
from polynet_keras.data.sampling import evaluation_share
from polynet_keras.data.unreadable import Unreadable
from polynet_keras.training.features.batches import _next_readable, evaluation_features, training_features
from polynet_keras.training.features.files import FeatureFiles
from tests.data.arrays import examples_of, png, random_images

PREPROCESSING = Preprocessing(12, 15)
LABELS = np.repeat([0, 1, 2], (6, 3, 2))
IMAGES = random_images(11)
BROKEN = (2, 3, 10)
EXAMPLES = examples_of([png(image) for image in IMAGES], LABELS)
ENCODED_WITH_BROKEN = [b"no image" if i in BROKEN else png(image) for i, image in enumerate(IMAGES)]
WITH_BROKEN = examples_of(ENCODED_WITH_BROKEN, LABELS)
AUGMENTATION = Augmentation("random_resized", flip=True)


def copies_of(folder, examples, count, on_error="error", labels=None):
    """The images themselves as features: centre crops, or so many augmented copies."""
    copies = []
    for epoch in range(count):
        files = FeatureFiles(folder / str(epoch), len(examples), (12, 12, 3), "float32")
        files.folder.mkdir()
        indices = np.arange(len(examples))
        dataset = images_once(
            examples,
            PREPROCESSING,
            indices,
            [4, 4, len(examples) - 8],
            Unreadable(on_error),
            epochs=None if count == 1 else np.full(len(examples), epoch),
            seed=5,
            augmentation=AUGMENTATION,
            labels=labels,
        )
        files.write(0, *map(np.concatenate, zip(*dataset.as_numpy_iterator(), strict=True)))
        copies.append(files)
    return copies


def taken(dataset, count):
    return list(dataset.take(count).as_numpy_iterator())


def check_equal(found, expected):
    for one, other in zip(found, expected, strict=True):
        for a, b in zip(one, other, strict=True):
            assert a.dtype == b.dtype
            np.testing.assert_array_equal(a, b)


def features_of(copies, order, first_step=0, examples=EXAMPLES, augmented=True):
    return training_features(copies, examples, order, first_step, Unreadable("skip"), augmented=augmented)


@pytest.mark.slow
@pytest.mark.parametrize(("on_error", "sampling"), [("error", "uniform"), ("skip", "uniform"), ("skip", "balanced")])
def test_as_many_copies_as_epochs_are_the_images_of_these_epochs(tmp_path, on_error, sampling):
    examples = EXAMPLES if on_error == "error" else WITH_BROKEN
    if sampling == "balanced":  # of two classes of one size, as then an epoch has each image once
        examples = examples_of(ENCODED_WITH_BROKEN[:10], np.arange(10) % 2)
    copies = copies_of(tmp_path, examples, 3, on_error, examples.labels if sampling == "balanced" else None)
    unreadable = Unreadable(on_error)
    images = training_batches(examples, PREPROCESSING, 4, 5, AUGMENTATION, sampling=sampling, unreadable=unreadable)
    expected = taken(images.dataset, 9)
    order = training_order(examples, 4, 5, sampling=sampling)
    for first in (0, 4):
        check_equal(taken(features_of(copies, order, first), 9 - first), expected[first:])
    # The fourth epoch has the first one's copies, in an order of its own.
    fourth = taken(features_of(copies, order, 9), 3)
    first = {row.tobytes() for images, _ in expected[:3] for row in images}
    assert {row.tobytes() for images, _ in fourth for row in images} == first


def numbered(folder, count):
    """So many copies, whose features are the numbers of copy and image."""
    copies = []
    for number in range(count):
        copies.append(FeatureFiles(folder / str(number), len(LABELS), (2,), "float32"))
        copies[-1].folder.mkdir(parents=True)
        features = np.stack([np.full(len(LABELS), number), np.arange(len(LABELS))], axis=1)
        copies[-1].write(0, features, LABELS, np.ones(len(LABELS), bool))
    return copies


@pytest.mark.parametrize("sampling", ["uniform", "balanced"])
@pytest.mark.parametrize(("workers", "replicas"), [(1, 1), (2, 1), (2, 2)])
def test_each_worker_has_its_part_of_each_batch(tmp_path, sampling, workers, replicas):
    """What an epoch draws twice it has in two copies: of eleven draws, three or four are of a class of two images."""
    copies, epochs, steps = numbered(tmp_path, 3), 4, 3
    for worker in range(workers):
        parts = {"sampling": sampling, "workers": workers, "worker": worker, "replicas": replicas}
        order = training_order(EXAMPLES, 4, 5, **parts)
        batches = taken(features_of(copies, order), epochs * steps * replicas)
        assert [len(labels) for _, labels in batches] == epochs * order.sizes.ravel().tolist()
        features, labels = (np.concatenate(part) for part in zip(*batches, strict=True))
        draws = np.concatenate([order.share(epoch) for epoch in range(epochs)])
        epoch = np.repeat(np.arange(epochs), order.sizes.sum())
        np.testing.assert_array_equal(features[:, 1], draws % len(LABELS))
        np.testing.assert_array_equal(features[:, 0], (epoch + draws // len(LABELS)) % 3)
        np.testing.assert_array_equal(labels, LABELS[draws % len(LABELS)])
        assert (draws >= len(LABELS)).any() == (sampling == "balanced")
        later = features_of(copies, order, 4)
        check_equal(taken(later, 2 * replicas), batches[4 * replicas : 6 * replicas])


def with_broken(folder):
    """A copy of which some images could not be read."""
    (copy,) = numbered(folder, 1)
    readable = ~np.isin(np.arange(len(LABELS)), BROKEN)
    copy.write(0, copy.features(np.arange(len(LABELS))), LABELS, readable)
    return copy


def test_an_image_that_could_not_be_read_is_replaced_by_the_next_one(tmp_path):
    order = training_order(EXAMPLES, 11, 5)
    ((features, labels),) = taken(features_of([with_broken(tmp_path)], order, augmented=False), 1)
    instead = np.array([{2: 4, 3: 4, 10: 0}.get(index, index) for index in order.order(0)])
    np.testing.assert_array_equal(features[:, 1], instead)
    np.testing.assert_array_equal(labels, LABELS[instead])
    nothing = FeatureFiles(tmp_path / "nothing", 2, (3,), "float32")
    nothing.folder.mkdir()
    nothing.write(0, np.zeros((2, 3), "float32"), np.zeros(2), np.zeros(2, bool))
    with pytest.raises(ValueError, match="no image to train on could be read"):
        features_of([nothing], order, augmented=False)


@pytest.mark.parametrize("augmented", [False, True])
def test_each_worker_lists_its_part_of_what_could_not_be_read(tmp_path, augmented):
    """An augmented copy holds what replaces it, which is taken."""
    copies, skipped = [*numbered(tmp_path / "whole", 1), with_broken(tmp_path)], []
    for worker in range(2):
        order, unreadable = training_order(EXAMPLES, 22, 5, workers=2, worker=worker), Unreadable("skip")
        batches = training_features(copies, EXAMPLES, order, 1, unreadable, augmented=augmented)
        skipped += unreadable.skipped.items()
        ((features, _),) = taken(batches, 1)
        assert set(features[:, 1]) & set(BROKEN) == (set(order.share(1)) & set(BROKEN) if augmented else set())
    text = "image {}: could not be read when its features were computed"
    assert sorted(skipped) == [(index, text.format(index)) for index in BROKEN]


@pytest.mark.slow
@pytest.mark.parametrize("labels", [None, LABELS])
def test_an_augmented_copy_knows_what_could_not_be_read(labels):
    unreadable, indices = Unreadable("skip"), np.arange(11)
    epochs = np.zeros(11, "int64")
    dataset = images_once(WITH_BROKEN, PREPROCESSING, indices, [11], unreadable, epochs=epochs, labels=labels)
    ((_, shown, valid),) = dataset.as_numpy_iterator()
    np.testing.assert_array_equal(valid, ~np.isin(indices, BROKEN))
    expected = LABELS.copy()
    if labels is None:
        expected[10] = LABELS[0]  # the next one that can be read is of another class
    np.testing.assert_array_equal(shown, expected)
    assert set(unreadable.skipped) == set(BROKEN)


def test_with_balanced_sampling_it_is_the_next_one_of_its_class():
    readable, labels = np.array([True, False, True, False, True, False]), np.array([0, 1, 0, 0, 1, 2])
    np.testing.assert_array_equal(_next_readable(readable, None), [0, 2, 2, 4, 4, 0])
    np.testing.assert_array_equal(_next_readable(readable, labels), [0, 4, 2, 0, 4, 0])


@pytest.mark.parametrize(("workers", "batch_size"), [(1, 4), (2, 4), (3, 2)])
def test_evaluation_has_what_could_be_read_once(tmp_path, workers, batch_size):
    copy, seen, skipped = with_broken(tmp_path), [], {}
    for worker in range(workers):
        unreadable = Unreadable("skip")
        batches = evaluation_features(copy, EXAMPLES, batch_size, workers, worker, unreadable)
        share = evaluation_share(len(LABELS), batch_size, workers, worker)
        assert batches.steps * batch_size == len(share)
        for features, labels, indices, valid in batches.dataset.as_numpy_iterator():
            np.testing.assert_array_equal(valid, (indices >= 0) & ~np.isin(indices, BROKEN))
            np.testing.assert_array_equal(features[valid, 1], indices[valid])
            np.testing.assert_array_equal(labels[valid], LABELS[indices[valid]])
            seen += indices[valid].tolist()
        skipped |= unreadable.skipped
        assert set(unreadable.skipped) == set(BROKEN) & set(share)
    assert seen == [index for index in range(len(LABELS)) if index not in BROKEN]
    assert sorted(skipped) == list(BROKEN)
    assert skipped[3] == "image 3: could not be read when its features were computed"


@pytest.mark.slow
def test_evaluation_of_images_and_of_their_features(tmp_path):
    (copy,) = copies_of(tmp_path, WITH_BROKEN, 1, "skip")
    of_images, unreadable = Unreadable("skip"), Unreadable("skip")
    images = evaluation_batches(WITH_BROKEN, PREPROCESSING, 4, unreadable=of_images)
    found = evaluation_features(copy, WITH_BROKEN, 4, 1, 0, unreadable)
    assert found.steps == images.steps
    for one, other in zip(found.dataset.as_numpy_iterator(), images.dataset.as_numpy_iterator(), strict=True):
        for a, b in zip(one, other, strict=True):
            np.testing.assert_array_equal(a[other[3]], b[other[3]])
        np.testing.assert_array_equal(one[3], other[3])
    assert unreadable.skipped.keys() == of_images.skipped.keys() == set(BROKEN)
