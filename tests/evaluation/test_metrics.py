"""Counts against scikit-learn, SciPy and a written-out loop, and that no split of the images changes them."""

import dataclasses
import functools
import json
import math
import operator

import numpy as np
import pytest
from scipy.special import softmax
from scipy.stats import binomtest
from sklearn.metrics import accuracy_score, classification_report, confusion_matrix, log_loss, top_k_accuracy_score

from polynet_keras.evaluation.metrics import CALIBRATION_BINS, Counts, wilson_interval

INTEGERS = ("confusion", "top5_hits", "images", "top1_hits", "bin_images", "bin_hits")


def of_a_net(seed, images, classes):
    """Probabilities of a net that is right now and then, confident to many degrees."""
    random = np.random.default_rng(seed)
    labels = random.integers(0, classes, images)
    logits = random.normal(0, 1 + random.random((images, 1)) * 2, (images, classes))
    logits[np.arange(images), labels] += random.normal(1, 1, images)
    return softmax(logits, axis=1), labels


def assert_same(found, expected):
    for name in INTEGERS:
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name), err_msg=name)
    np.testing.assert_allclose(found.loss_sum, expected.loss_sum, rtol=1e-12)
    np.testing.assert_allclose(found.bin_confidence, expected.bin_confidence, rtol=1e-12)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("images", "classes"), [(200, 10), (50, 7), (300, 30), (40, 6)])
def test_against_scikit_learn(seed, images, classes):
    probabilities, labels = of_a_net(seed, images, classes)
    counts = Counts.of(probabilities, labels)
    known = np.arange(classes)
    assert counts.images == images
    assert counts.top1 == accuracy_score(labels, probabilities.argmax(1))
    assert counts.top5 == top_k_accuracy_score(labels, probabilities, k=5, labels=known)
    assert counts.loss == pytest.approx(log_loss(labels, probabilities, labels=known), rel=1e-12)
    expected = confusion_matrix(labels, probabilities.argmax(1), labels=known)
    np.testing.assert_array_equal(counts.confusion, expected)
    for label in known:
        of_class = labels == label
        if of_class.any():
            assert counts.class_accuracy[label] == np.mean(probabilities[of_class].argmax(1) == label)
        else:
            assert math.isnan(counts.class_accuracy[label])


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("images", "classes"), [(200, 10), (40, 30), (3, 7)])
def test_classes_against_scikit_learn(seed, images, classes):
    """Of the classes of three images some have no image, some no prediction, and some neither."""
    probabilities, labels = of_a_net(seed, images, classes)
    counts = Counts.of(probabilities, labels)
    report = classification_report(
        labels, probabilities.argmax(1), labels=np.arange(classes), output_dict=True, zero_division=np.nan
    )
    parts = counts.class_images, counts.class_precision, counts.class_accuracy, counts.class_f1
    for name, of_classes in zip(("support", "precision", "recall", "f1-score"), parts, strict=True):
        np.testing.assert_allclose(of_classes, [report[str(label)][name] for label in range(classes)], rtol=1e-12)
        assert images >= classes or name == "support" or np.isnan(of_classes).any()
        if name != "support":
            assert np.nanmean(of_classes) == pytest.approx(report["macro avg"][name])


@pytest.mark.parametrize("seed", range(4))
def test_calibration_error_against_a_loop(seed):
    probabilities, labels = of_a_net(seed, 500, 10)
    probabilities = probabilities.astype("float32")  # what a network gives
    error = 0.0
    for m in range(CALIBRATION_BINS):
        inside = [
            (float(row.max()), row.argmax() == label)
            for row, label in zip(probabilities, labels, strict=True)
            if m / CALIBRATION_BINS < float(row.max()) <= (m + 1) / CALIBRATION_BINS
        ]
        if inside:
            confidence, accuracy = np.mean(inside, axis=0)
            error += len(inside) / len(labels) * abs(accuracy - confidence)
    assert Counts.of(probabilities, labels).ece == pytest.approx(error, rel=1e-9)
    assert error > 0.01  # else anything small would do


def test_bins_hold_their_upper_end():
    probabilities = np.array([[1.0, 0.0], [0.6, 0.4], [0.5, 0.5]])  # 0.6 is the upper end of bin 9, of index 8
    counts = Counts.of(probabilities, np.array([0, 1, 0]))
    assert np.flatnonzero(counts.bin_images).tolist() == [7, 8, 14]
    assert counts.bin_hits[[7, 8, 14]].tolist() == [1, 0, 1]
    np.testing.assert_allclose(counts.bin_confidence[[7, 8, 14]], [0.5, 0.6, 1.0])
    assert counts.ece == pytest.approx((0.5 + 0.6 + 0.0) / 3)


@pytest.mark.parametrize("seed", range(2))
def test_no_batch_size_changes_the_counts(seed):
    images = 37
    probabilities, labels = of_a_net(seed, images, 12)
    expected = Counts.of(probabilities, labels)
    for size in range(1, images + 1):
        batches = [Counts.of(probabilities[i : i + size], labels[i : i + size]) for i in range(0, images, size)]
        assert_same(functools.reduce(operator.add, batches), expected)


@pytest.mark.parametrize("workers", [1, 2, 3, 5, 8, 41])
def test_no_split_among_workers_changes_the_counts(workers):
    """Each worker has every nth image; all pad to the same number of full batches, with what must not be looked at."""
    images, size = 37, 4
    probabilities, labels = of_a_net(0, images, 12)
    batches = -(-images // (workers * size))
    parts = []
    for worker in range(workers):
        padded = np.full((batches * size, 12), np.nan)
        padded_labels = np.full(batches * size, -1)
        valid = np.zeros(batches * size, bool)
        mine = np.arange(worker, images, workers)
        padded[: len(mine)], padded_labels[: len(mine)], valid[: len(mine)] = probabilities[mine], labels[mine], True
        parts += [
            Counts.of(padded[i : i + size], padded_labels[i : i + size], valid[i : i + size])
            for i in range(0, len(valid), size)
        ]
    merged = functools.reduce(operator.add, parts)
    assert_same(merged, Counts.of(probabilities, labels))
    merged.check_complete(images)


def test_check_complete():
    probabilities, labels = of_a_net(0, 9, 3)
    counts = Counts.of(probabilities, labels)
    counts.check_complete(9)
    for expected in (8, 10):
        with pytest.raises(ValueError, match=f"evaluated 9 of {expected} images"):
            counts.check_complete(expected)


def test_equal_probabilities_rank_by_class():
    """A net that says the same of all classes gets one image of each 10 right, and half of them among the best 5."""
    labels = np.arange(10)
    counts = Counts.of(np.full((10, 10), 0.1), labels)
    assert (counts.top1, counts.top5) == (0.1, 0.5)
    assert counts.confusion[:, 0].tolist() == [1] * 10
    # The same of any dtype, and of ties among some: classes 1 and 4 share the second rank of six.
    row = np.array([0.3, 0.15, 0.15, 0.1, 0.15, 0.15], "float16")
    expected = {0: (1, 1), 1: (0, 1), 2: (0, 1), 3: (0, 0), 4: (0, 1), 5: (0, 1)}
    for label, hits in expected.items():
        counts = Counts.of(row[None], np.array([label]))
        assert (counts.top1_hits, counts.top5_hits) == hits
        assert (label in np.argsort(-row, kind="stable")[:5]) == bool(hits[1])


def test_of_up_to_five_classes_all_are_among_the_best():
    probabilities, labels = of_a_net(0, 20, 4)
    counts = Counts.of(probabilities, labels)
    assert counts.top5 == 1
    assert counts.top1 < 1


def test_probability_zero_is_a_large_but_finite_loss():
    counts = Counts.of(np.array([[1.0, 0.0], [0.25, 0.75]]), np.array([1, 0]))
    assert counts.loss == pytest.approx((708.3964185322641 + math.log(4)) / 2)


@pytest.mark.parametrize("total", [0.99 + 1e-9, 1.01 - 1e-9])
def test_sums_of_low_precision_are_accepted(total):
    """They may be 0.01 away from 1, and no further."""
    row, beyond = np.array([[0.6, total - 0.6]]), np.array([[0.6, total - 0.6 + math.copysign(2e-9, total - 1)]])
    assert Counts.of(row, np.array([0])).loss == pytest.approx(-math.log(0.6))
    with pytest.raises(ValueError, match="1 row of 1 must be probabilities"):
        Counts.of(beyond, np.array([0]))
    with pytest.raises(ValueError, match="2 rows of 3 must be probabilities.*: the first sums to 1.02 and"):
        Counts.of(np.array([[0.5, 0.5], [0.5, 0.52], [0.5, 0.48]]), np.array([0, 0, 0]))


def test_probabilities_of_a_half_precision_network_are_accepted():
    for dtype in ("float16", "float32"):
        probabilities, labels = of_a_net(0, 100, 1000)
        counts = Counts.of(probabilities.astype(dtype), labels)
        assert counts.loss == pytest.approx(log_loss(labels, probabilities, labels=np.arange(1000)), rel=2e-3)


def test_equally_frequent_confusions_come_in_the_order_of_the_classes():
    """Of 30 classes each is taken for each other one once: more pairs than NumPy sorts in order by itself."""
    classes = 30
    pairs = [(i, j) for i in range(classes) for j in range(classes) if i != j]
    labels, predicted = np.array(pairs).T
    counts = Counts.of(np.eye(classes)[predicted], labels)
    assert counts.worst_pairs(len(pairs) + 5) == tuple((i, j, 1) for i, j in pairs)
    again = counts + Counts.of(np.eye(classes)[[3, 3]], np.array([20, 20]))
    assert again.worst_pairs(3) == ((20, 3, 3), (0, 1, 1), (0, 2, 1))


def test_worst_pairs():
    counts = Counts.of(np.eye(3)[[0, 1, 1, 2, 2, 2, 0, 1]], np.array([0, 0, 0, 1, 2, 1, 2, 0]))
    assert counts.worst_pairs(10) == ((0, 1, 3), (1, 2, 2), (2, 0, 1))
    assert counts.worst_pairs(1) == ((0, 1, 3),)
    assert Counts.of(np.eye(2), np.arange(2)).worst_pairs(5) == ()


@pytest.mark.parametrize("images", [1, 2, 17, 100, 50_000])
def test_interval_is_wilsons(images):
    for hits in {0, 1, images // 3, images - 1, images}:
        expected = binomtest(hits, images).proportion_ci(0.95, method="wilson")
        np.testing.assert_allclose(wilson_interval(hits, images), expected, rtol=1e-12, atol=1e-15)
    probabilities, labels = of_a_net(0, images, 10)
    counts = Counts.of(probabilities, labels)
    assert counts.interval() == wilson_interval(counts.top1_hits, images)


def test_an_absent_class_has_no_accuracy():
    """And no division by 0 is tried, of which NumPy would warn."""
    with np.errstate(all="raise"):
        accuracy = Counts.of(np.eye(3)[[0, 1, 1]], np.array([0, 0, 1])).class_accuracy
    np.testing.assert_array_equal(accuracy, [0.5, 1, np.nan])


def test_ends_of_the_interval_are_exact():
    for images in range(1, 200):
        assert wilson_interval(0, images)[0] == 0
        assert wilson_interval(images, images)[1] == 1


def test_no_images():
    counts = Counts.of(np.empty((3, 4)), np.full(3, -1), np.zeros(3, bool))
    assert counts.images == counts.top1_hits == counts.top5_hits == 0
    values = (counts.top1, counts.top5, counts.loss, counts.ece, *counts.interval(), *counts.class_accuracy)
    assert all(math.isnan(value) for value in values)
    assert_same(counts, Counts.of(np.empty((0, 4)), np.empty(0, int)))
    probabilities, labels = of_a_net(0, 5, 4)
    assert_same(counts + Counts.of(probabilities, labels), Counts.of(probabilities, labels))


def test_counts_are_numbers_that_json_knows_and_are_compared_by_identity():
    probabilities, labels = of_a_net(0, 5, 4)
    counts, again = Counts.of(probabilities, labels), Counts.of(probabilities, labels)
    assert {type(value) for value in (counts.images, counts.top1_hits, counts.top5_hits)} == {int}
    assert {type(value) for value in (counts.loss_sum, counts.loss, counts.top1, counts.ece)} == {float}
    mistaken = Counts.of(np.eye(2)[[0, 0]], np.array([1, 1]))
    assert json.dumps(mistaken.worst_pairs(1)) == "[[1, 0, 2]]"
    assert len({counts, again, counts}) == 2
    with pytest.raises(dataclasses.FrozenInstanceError):
        counts.top5_hits = 0


def test_labels_of_few_bits_do_not_overflow():
    probabilities, labels = of_a_net(0, 60, 30)
    assert_same(Counts.of(probabilities, labels.astype("uint8")), Counts.of(probabilities, labels))


def test_counts_of_other_classes_cannot_be_added():
    with pytest.raises(ValueError, match="counts of 3 and of 4 classes cannot be added"):
        Counts.of(np.eye(3), np.arange(3)) + Counts.of(np.eye(4), np.arange(4))


@pytest.mark.parametrize(
    ("probabilities", "labels", "valid", "message"),
    [
        (np.ones(3), np.arange(3), None, r"got the shapes \(3,\) and \(3,\)"),
        (np.eye(3), np.arange(2), None, r"got the shapes \(3, 3\) and \(2,\)"),
        (np.eye(3), np.int64(3), None, r"got the shapes \(3, 3\) and \(\)"),
        (np.empty((0, 0)), np.arange(0), None, r"got the shapes \(0, 0\)"),
        (np.empty((3, 0)), np.arange(3), None, r"got the shapes \(3, 0\)"),
        (np.eye(3), np.arange(3), np.ones(2, bool), r"valid must be bool, of the labels' shape, 3; got bool, 2"),
        (np.eye(3), np.arange(3), np.ones(3, int), r"valid must be bool.*; got int64"),
        (np.eye(3), np.array([0, 1, 3]), None, "labels must be integers of at least 0, below the 3 classes"),
        (np.eye(3), np.array([0, 1, -1]), None, "labels must be integers"),
        (np.eye(3), np.array([0.0, 1, 2]), None, "labels must be integers"),
        (
            np.array([[1, 0, 0], [0, np.nan, 0], [0, np.inf, 0]]),  # one value each, in one column
            np.arange(3),
            None,
            "2 of 3 images have probabilities that are not fi",
        ),
        (
            4 * np.eye(3) - 1,
            np.arange(3),
            None,
            r"3 rows of 3 must be probabilities.*sums to 1 and.*-1; logits need a s",
        ),
        (2 * np.eye(3), np.arange(3), None, "the first sums to 2 and"),
    ],
)
def test_mistakes(probabilities, labels, valid, message):
    with pytest.raises(ValueError, match=message):
        Counts.of(probabilities, labels, valid)
