import tracemalloc
from itertools import product

import numpy as np
import pytest
from scipy.special import softmax

from polynet_keras.evaluation.pooling import POOLINGS, SCORES, Pooling, pool


def logits_of(seed, images, crops, classes, dtype="float32"):
    return np.random.default_rng(seed).normal(0, 4, (images, crops, classes)).astype(dtype)


def pooled_one_by_one(logits, best, on):
    """In float64, a class of an image at a time, by sorting."""
    logits = np.asarray(logits, "float64")
    scores = softmax(logits, axis=2) if on == "probabilities" else logits
    rows = []
    for image in scores:
        row = [sum(sorted(column, reverse=True)[:best]) / best for column in image.T]
        rows.append(np.divide(row, sum(row)) if on == "probabilities" else softmax(row))
    return np.array(rows)


@pytest.mark.parametrize("on", SCORES)
@pytest.mark.parametrize(
    ("crops", "fraction", "best"), [(144, 0.3, 43), (10, 0.3, 3), (7, 1.0, 7), (7, 1e-9, 1), (5, 0.5, 2), (7, 0.5, 4)]
)
def test_selective_pooling_equals_sorting(on, crops, fraction, best):
    """The share is rounded half to even: of 2.5 crops to 2, of 3.5 to 4."""
    for seed in range(3):
        logits = logits_of(seed, 3, crops, 6 + seed)
        found = pool(logits, "selective", fraction, on)
        assert found.dtype == "float64"
        np.testing.assert_allclose(found, pooled_one_by_one(logits, best, on), rtol=1e-12)
        np.testing.assert_allclose(found.sum(axis=1), 1, rtol=1e-14)


class Promised(np.ndarray):
    """Its `partition` does what NumPy promises and no more: NumPy's own sorts arrays as short as these altogether."""

    def partition(self, kth, axis=-1, **options):
        self.sort(axis)
        below, above = np.split(np.moveaxis(self, axis, 0), [kth])
        below[:], above[1:] = below[::-1].copy(), above[:0:-1].copy()


def test_the_promised_partition_is_all_that_there_is():
    found = np.array([[5.0, 1, 4, 2, 3]]).view(Promised)
    found.partition(2, axis=1)
    assert found.tolist() == [[2, 1, 3, 5, 4]]


@pytest.mark.parametrize("on", SCORES)
@pytest.mark.parametrize(("crops", "fraction", "best"), [(10, 0.3, 3), (7, 1.0, 7), (7, 1e-9, 1), (144, 0.3, 43)])
def test_the_best_crops_are_told_by_the_pivot(on, crops, fraction, best):
    logits = logits_of(0, 3, crops, 6)
    found = np.asarray(pool(logits.view(Promised), "selective", fraction, on))
    np.testing.assert_allclose(found, pooled_one_by_one(logits, best, on), rtol=1e-12)


@pytest.mark.parametrize("on", SCORES)
def test_mean_and_max(on):
    for dtype in ("float16", "float32", "float64"):
        logits = logits_of(5, 4, 10, 7, dtype)
        np.testing.assert_allclose(pool(logits, "mean", on=on), pooled_one_by_one(logits, 10, on), rtol=1e-12)
        np.testing.assert_allclose(pool(logits, "max", on=on), pooled_one_by_one(logits, 1, on), rtol=1e-12)


def test_by_hand():
    """Two crops of two classes with the probabilities 0.8, 0.2 and 0.4, 0.6."""
    logits = np.log([[[0.8, 0.2], [0.4, 0.6]]])
    np.testing.assert_allclose(pool(logits, "mean"), [[0.6, 0.4]])
    np.testing.assert_allclose(pool(logits, "max"), [[0.8 / 1.4, 0.6 / 1.4]])
    total = 0.32**0.5 + 0.12**0.5  # the geometric means
    np.testing.assert_allclose(pool(logits, "mean", on="logits"), [[0.32**0.5 / total, 0.12**0.5 / total]])


def test_the_defaults():
    logits = logits_of(0, 2, 144, 10)
    np.testing.assert_array_equal(pool(logits), pool(logits, "selective", 0.3, "probabilities"))


def test_one_crop_is_the_softmax():
    logits = logits_of(1, 5, 1, 9)
    expected = softmax(logits[:, 0].astype("float64"), axis=1)
    for pooling, on in product(POOLINGS, SCORES):
        np.testing.assert_allclose(pool(logits, pooling, on=on), expected, rtol=1e-12)


def test_large_logits():
    logits = logits_of(2, 3, 4, 5, "float64") * 1000
    for pooling, on in product(POOLINGS, SCORES):
        found = pool(logits, pooling, on=on)
        assert np.isfinite(found).all()
        np.testing.assert_allclose(found, pool(logits + 1e4, pooling, on=on), atol=1e-9)


def test_classes_choose_their_own_crops():
    """Each of three crops shows another class; the share of 0.3 is one crop."""
    logits = np.log([[[0.9, 0.05, 0.05], [0.05, 0.9, 0.05], [0.1, 0.1, 0.8]]])
    np.testing.assert_allclose(pool(logits, "selective", 0.3), [np.array([0.9, 0.9, 0.8]) / 2.6])


def test_slices_do_not_show(monkeypatch):
    logits = logits_of(3, 11, 6, 5)
    whole = pool(logits)
    for values in (1, 30, 61, 200):
        monkeypatch.setattr("polynet_keras.evaluation.pooling.SLICE_VALUES", values)
        np.testing.assert_array_equal(pool(logits), whole)


def test_memory_is_that_of_a_slice(monkeypatch):
    logits = logits_of(4, 2000, 12, 100)
    monkeypatch.setattr("polynet_keras.evaluation.pooling.SLICE_VALUES", 2**14)
    tracemalloc.start()
    try:
        pool(logits)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    # 3.2 MB are the result before and after its division by the sums; the logits would be 19.2 MB in float64.
    assert peak < 5e6


def test_logits_are_left_alone():
    for dtype, on in product(("float32", "float64"), SCORES):
        logits = logits_of(6, 3, 8, 4, dtype)
        before = logits.copy()
        pool(logits, on=on)
        np.testing.assert_array_equal(logits, before)


def test_no_image():
    assert pool(np.zeros((0, 10, 4), "float32")).shape == (0, 4)


def test_what_is_refused():
    for arguments, message in (
        ({"pooling": "median"}, "pooling='median' must be one of selective, mean, max"),
        ({"on": "scores"}, "on='scores' must be one of probabilities, logits"),
        ({"fraction": 0}, "fraction=0 must be above 0 and at most 1"),
        ({"fraction": 1.01}, "fraction=1.01 must be above 0 and at most 1"),
        ({"fraction": float("nan")}, "fraction=nan must be above 0 and at most 1"),
    ):
        with pytest.raises(ValueError, match=message):
            pool(np.zeros((2, 3, 4)), **arguments)


def test_a_pooling_is_the_function_with_its_arguments():
    logits = logits_of(7, 4, 10, 5)
    for pooling, on, fraction in product(POOLINGS, SCORES, (0.2, 0.5)):
        found = Pooling(pooling, fraction, on)(logits)
        np.testing.assert_array_equal(found, pool(logits, pooling, fraction, on))
    np.testing.assert_array_equal(Pooling()(logits), pool(logits))
    assert len({Pooling(), Pooling("selective", 0.3), Pooling("mean")}) == 2  # they are values
    # As a table of results and a report name it.
    assert str(Pooling()) == "selective 0.3 of probabilities"
    assert str(Pooling("mean", 0.5, "logits")) == "mean of logits"
    assert str(Pooling("max")) == "max of probabilities"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"pooling": "median"}, "pooling='median' must be one of"),
        ({"on": "scores"}, "on='scores' must be one of"),
        ({"fraction": 0.0}, "fraction=0.0 must be above 0"),
        ({"fraction": 1.5}, "fraction=1.5 must be above 0"),
    ],
)
def test_a_pooling_that_cannot_be_is_refused_before_there_are_logits(arguments, message):
    with pytest.raises(ValueError, match=message):
        Pooling(**arguments)


def test_other_shapes_are_refused():
    for shape in ((3, 4), (2, 0, 4), (2, 3, 0), (1, 2, 3, 4)):
        with pytest.raises(ValueError, match=r"must have the shape \(images, crops, classes\); got "):
            pool(np.zeros(shape))


def test_broken_logits_are_refused():
    for value, on in product((np.nan, np.inf, -np.inf), SCORES):
        logits = logits_of(0, 4, 3, 2)
        logits[3, 1, 0] = value
        with pytest.raises(ValueError, match="logits must be finite"):
            pool(logits, on=on)
