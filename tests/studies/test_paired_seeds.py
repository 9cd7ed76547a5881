"""Statistics over seeds, against printed tables, G*Power's numbers and simulation."""

import numpy as np
import pytest
from scipy import stats

from polynet_keras.studies.paired_seeds import confidence_interval, holm, needed_seeds, p_value


@pytest.mark.parametrize(("count", "t"), [(2, 12.7062), (3, 4.3027), (10, 2.2622)])
def test_the_interval_is_students(count, t):
    """With t of a printed table."""
    values = np.random.default_rng(count).normal(1, 2, count)
    half = t * np.sqrt(np.sum((values - values.mean()) ** 2) / (count - 1) / count)
    np.testing.assert_allclose(
        confidence_interval(values), [values.mean(), values.mean() - half, values.mean() + half], rtol=1e-4, atol=1e-4
    )
    _, low, high = confidence_interval(values, 0.999)
    assert (high - low) / 2 == pytest.approx(stats.t.ppf(0.9995, count - 1) * stats.sem(values))
    with pytest.raises(ValueError, match="two or more values; got 1"):
        confidence_interval([1.0])
    with pytest.raises(ValueError, match="level=1 must be"):
        confidence_interval([1.0, 2.0], 1)


@pytest.mark.parametrize("seed", range(3))
def test_the_test_is_students(seed):
    values = np.random.default_rng(seed).normal(0.5, 1, 8)
    assert p_value(values) == pytest.approx(stats.ttest_1samp(values, 0).pvalue)


def test_equal_differences_test_nothing():
    """Two seeds of few images often have as many errors: a t test without spread would be certain."""
    for values in ([0.5, 0.5], [0.0, 0.0, 0.0], [0.1, 0.3 - 0.2]):
        assert np.isnan(p_value(values))
    with pytest.raises(ValueError, match="two or more values; got 0"):
        p_value([])


def test_adjusted_for_their_number():
    """Holm's own way: the smallest times 4, the next times 3; never below a smaller one, and at most 1."""
    assert holm([0.03, 0.005, 0.02, 0.9]) == pytest.approx([0.06, 0.02, 0.06, 0.9])
    assert holm([0.6, 0.7]) == [1, 1]
    assert holm([]) == []


@pytest.mark.parametrize(("effect", "seeds"), [(0.2, 199), (0.3, 90), (0.5, 34), (0.8, 15)])
def test_seeds_as_gpower_counts_them(effect, seeds):
    """G*Power 3.1, t tests, difference of two dependent means, two-sided, 5 %, power 80 %."""
    assert needed_seeds(2.0, 2 * effect) == seeds


def test_the_power_is_reached_in_a_simulation():
    seeds = needed_seeds(0.5, 0.4, power=0.9, level=0.99)
    drawn = np.random.default_rng(0).normal(0.4, 0.5, (20_000, seeds))
    found = np.mean(stats.ttest_1samp(drawn, 0, axis=1).pvalue < 0.01)
    assert 0.895 < found < 0.925


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0, 0.3), "deviation=0 must be"),
        ((0.5, -0.3), "difference=-0.3 must be"),
        ((0.5, 0.3, 1), "power=1 must be"),
        ((0.5, 0.3, 0.8, 0), "level=0 must be"),
        ((0.5, 0.001), "difference=0.001 takes more than 10,000 seeds at a deviation of 0.5"),
    ],
)
def test_numbers_out_of_range(arguments, message):
    with pytest.raises(ValueError, match=message):
        needed_seeds(*arguments)


@pytest.mark.parametrize(
    ("effect", "level", "seeds"), [(20, 0.95, 2), (25, 0.95, 2), (50, 0.95, 2), (1000, 0.95, 2), (3, 0.999, 7)]
)
def test_large_differences(effect, level, seeds):
    """Where SciPy has no value for the power on the wrong side."""
    assert needed_seeds(1.0, effect, level=level) == seeds
