"""Sums of gradients in float16: within the bound that `compression` gives, of what NumPy sums in float64."""

import numpy as np
import pytest
import tensorflow as tf

from polynet_keras.cluster.communication import GRADIENT_DTYPES
from polynet_keras.engine import compression

SHAPES = [(3, 3, 4, 5), (7,), (1,), (64, 10)]


def summed(parts: list[list[np.ndarray]], order=slice(None)) -> list[np.ndarray]:
    """As replicas sum them: `parts` are the gradients of each."""
    tensors = [[tf.constant(g) for g in part] for part in parts]
    totals = tf.add_n([compression.magnitudes(part) for part in tensors])
    halves = [compression.compressed(part, totals) for part in tensors]
    assert {half.dtype for part in halves for half in part} == {tf.float16}
    sums = []
    for several in list(zip(*halves, strict=True)):
        total, *rest = several[order]
        for half in rest:
            total = total + half
        sums.append(total)
    dtypes = [g.dtype for g in tensors[0]]
    found = compression.expanded(sums, totals, dtypes)
    assert [g.dtype for g in found] == dtypes
    return [g.numpy() for g in found]


def bound(parts: list[np.ndarray]) -> np.ndarray:
    replicas = len(parts)
    exact = [part.astype("float64") for part in parts]
    rounding = replicas * 2.0**-11 * sum(np.abs(part) for part in exact)
    # Float16's unit roundoff is 2⁻¹¹ to first order in it.
    return rounding * (1 + replicas * 2.0**-11) + replicas * 2.0**-38 * sum(np.abs(part).max() for part in exact)


@pytest.mark.parametrize("replicas", [1, 2, 3, 8, 32])
@pytest.mark.parametrize("magnitude", [1e-25, 1e-12, 1e-4, 1.0, 3e7, 1e30])
@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in (1, 2))])
def test_error_is_within_the_bound(replicas, magnitude, seed):
    rng = np.random.default_rng(seed)
    parts = [
        # Elements of very different sizes, some of them zero, in gradients that differ between variables and replicas.
        [
            (
                magnitude
                * 10.0 ** rng.uniform(-3, 3)
                * rng.normal(size=shape)
                * 10.0 ** rng.uniform(-6, 0, shape)
                * (rng.random(shape) > 0.1)
            ).astype("float32")
            for shape in SHAPES
        ]
        for _ in range(replicas)
    ]
    for order in (slice(None), slice(None, None, -1)):
        for number, found in enumerate(summed(parts, order)):
            of_variable = [part[number] for part in parts]
            exact = sum(part.astype("float64") for part in of_variable)
            assert (np.abs(found - exact) <= bound(of_variable)).all()


@pytest.mark.parametrize(
    "power", [-126, 0, 117, *(pytest.param(p, marks=pytest.mark.slow) for p in (-113, -1, 1, 113))]
)
def test_where_all_gradients_are_as_large_as_can_be_no_sum_overflows(power):
    """The largest float32 under a power of two is what the scale makes the largest of."""
    largest = np.nextafter(np.float32(2.0), np.float32(0.0)) * np.float32(2.0) ** np.float32(power)
    assert largest < 2.0 * 2.0**power
    ones = [np.full(4, largest)]
    for replicas in (1, 2, 31, 32, 512):
        (found,) = summed([ones] * replicas)
        np.testing.assert_allclose(found, replicas * ones[0].astype("float64"), rtol=replicas * 2.0**-11)


@pytest.mark.parametrize(
    "total", [2.0**-100, 1.5 * 2.0**-12, 1.0, 1.5, np.nextafter(np.float32(2), np.float32(0)), 1e38]
)
def test_the_largest_is_brought_to_between_two_powers(total):
    """No higher: a quarter of float16's range is for what rounding adds. No lower: small elements are lost there."""
    gradients = [tf.constant([total, -total, 0.0], tf.float32)]
    (half,) = compression.compressed(gradients, compression.magnitudes(gradients))
    assert 2.0**13 <= float(half[0]) <= 2.0**14
    assert half[1] == -half[0]


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_gradients_near_the_smallest_numbers_are_summed_exactly(sign):
    """Both the scale and its inverse are float32's: of these the scale for the largest would not be."""
    for largest in (-112, -113, -114, -120, -125, -126):
        gradients = np.array([sign * 2.0**power for power in range(largest, -127, -1)], "float32")
        for replicas in (1, 2):
            (found,) = summed([[gradients]] * replicas)
            np.testing.assert_array_equal(found, replicas * gradients.astype("float64"))


def test_gradients_are_summed_in_one_of_two_dtypes():
    assert GRADIENT_DTYPES == ("float32", "float16")


def test_magnitudes_are_the_largest_of_each_gradient():
    gradients = [
        tf.constant([[1.0, -3.0], [2.0, 0.5]]),
        tf.constant([0.25], tf.float64),
        tf.constant([-0.0], tf.float16),
    ]
    found = compression.magnitudes(gradients)
    assert tf.is_tensor(found)
    assert found.dtype == tf.float32
    np.testing.assert_array_equal(found, [3.0, 0.25, 0.0])


def test_zeros_stay_zeros_and_what_is_not_finite_stays_so():
    (zeros,) = summed([[np.zeros(3, "float32")]] * 2)
    np.testing.assert_array_equal(zeros, np.zeros(3))
    for bad in (np.inf, -np.inf, np.nan):
        (found,) = summed([[np.array([1.0, bad], "float32")], [np.array([1.0, 2.0], "float32")]])
        assert not np.isfinite(found[1])


def test_powers_of_two_are_exact():
    """What needs no rounding is not rounded: the scale is a power of two, whatever the largest gradient is."""
    for largest in (1.0, 1.5, 3.0, 1e-7, 12345.0):
        values = np.float32(2.0) ** np.arange(-8, 1).astype("float32") * np.float32(2.0) ** np.floor(np.log2(largest))
        gradients = np.append(values, np.float32(largest)).astype("float32")
        (found,) = summed([[gradients], [np.zeros_like(gradients)]])
        np.testing.assert_array_equal(found[:-1], values)


def test_gradients_of_other_dtypes_come_back_in_them():
    gradients = [
        tf.constant([1.0, 2.0], tf.float64),
        tf.constant([0.5], tf.bfloat16),
        tf.constant([0.25, 2.0**-12], tf.float16),
        tf.constant([2.0**-14], tf.float16),  # of which the scale is more than float16 holds
        tf.constant([0.0], tf.float16),
    ]
    totals = compression.magnitudes(gradients)
    found = compression.expanded(compression.compressed(gradients, totals), totals, [g.dtype for g in gradients])
    for ours, theirs in zip(found, gradients, strict=True):
        assert ours.dtype == theirs.dtype
        np.testing.assert_array_equal(np.asarray(ours, "float64"), np.asarray(theirs, "float64"))
