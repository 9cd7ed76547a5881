"""Statistics of nets trained with the same seeds: differences by seed, their intervals, and how many seeds decide."""

import bisect
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from polynet_keras.basics.checks import check_number
from polynet_keras.studies.ablation_outcomes import Outcome

MOST_SEEDS = 10_000
ROUNDING = 1e-9
"""Least distance of two shares of held-out images that is not a rounding error."""


@dataclass(frozen=True)
class PairedDifferences:
    """A net of other modules against an Inception-ResNet, seed by seed.

    Attributes:
        variant, baseline: names.
        differences: by seed, in error, variant minus baseline, as shares of the held-out images.
    """

    variant: str
    baseline: str
    differences: dict[int, float]


def comparisons(outcomes: Sequence[Outcome], equal: str) -> list[PairedDifferences]:
    """The pairs of equal `"depth"` or `"compute"` that have seeds in common.

    Examples:
        >>> pair = comparisons(outcomes, "compute")[0]
        >>> pair.variant, pair.baseline
        ('A 2-way', 'ir 1-1-1')
        >>> {seed: round(difference, 3) for seed, difference in pair.differences.items()}
        {0: -0.014, 1: -0.006}
    """
    errors: dict[str, dict[int, float]] = {}
    for outcome in outcomes:
        errors.setdefault(outcome.variant, {})[outcome.seed] = outcome.error
    pairs = dict.fromkeys((outcome.variant, getattr(outcome, f"same_{equal}")) for outcome in outcomes if outcome.stage)
    found = []
    for variant, baseline in pairs:
        seeds = sorted(set(errors[variant]) & set(errors.get(baseline, {})))
        if seeds:
            differences = {seed: errors[variant][seed] - errors[baseline][seed] for seed in seeds}
            found.append(PairedDifferences(variant, baseline, differences))
    return found


def confidence_interval(differences: Sequence[float], level: float = 0.95) -> tuple[float, float, float]:
    """The mean, and the bounds of its confidence interval (Student's t).

    Args:
        differences: one value for each seed.
        level: confidence level, between 0 and 1.

    Raises:
        ValueError: fewer than two values, or the level is out of range.

    Examples:
        >>> [round(value, 2) for value in confidence_interval([0.1, 0.2, 0.3])]
        [0.2, -0.05, 0.45]
    """
    if len(differences) < 2:
        raise ValueError(f"an interval takes two or more values; got {len(differences)}")
    check_number("level", level, above=0, below=1)
    from scipy import stats

    mean = statistics.fmean(differences)
    half = float(stats.t.ppf((1 + level) / 2, len(differences) - 1) * stats.sem(differences))
    return mean, mean - half, mean + half


def has_spread(differences: Sequence[float]) -> bool:
    """Whether seeds differ. If two or three have equal differences by chance, a t test would be certain of anything."""
    return max(differences) - min(differences) > ROUNDING


def p_value(differences: Sequence[float]) -> float:
    """The probability of a mean as far from zero, if the true mean is zero (Student's two-sided t test).

    It is NaN if all differences are equal.

    Raises:
        ValueError: fewer than two values.
    """
    if len(differences) < 2:
        raise ValueError(f"a test takes two or more values; got {len(differences)}")
    if not has_spread(differences):
        return math.nan
    from scipy import stats

    mean, error = statistics.fmean(differences), float(stats.sem(differences))
    return 2 * float(stats.t.sf(abs(mean) / error, len(differences) - 1))


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusts p-values for their number, in their order.

    Args:
        p_values: p-values of different questions, none of them NaN.

    Source: S. Holm, "A simple sequentially rejective multiple test procedure", 1979.
    """
    adjusted, largest = [0.0] * len(p_values), 0.0
    for done, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        largest = max(largest, min((len(p_values) - done) * p_values[index], 1.0))
        adjusted[index] = largest
    return adjusted


def needed_seeds(deviation: float, difference: float, power: float = 0.8, level: float = 0.95) -> int:
    """How many seeds a paired comparison takes to find a difference: the power of Student's two-sided t test.

    Args:
        deviation: standard deviation of the differences between seeds, from a pilot study.
        difference: true difference that is to be found, in the same unit.
        power: probability to find it, between 0 and 1.
        level: confidence level of the interval that must exclude zero, between 0 and 1.

    Raises:
        ValueError: a number is out of range, or more than 10,000 seeds are needed.

    Examples:
        >>> needed_seeds(deviation=0.5, difference=0.3)
        24
    """
    check_number("deviation", deviation, above=0)
    check_number("difference", difference, above=0)
    check_number("power", power, above=0, below=1)
    check_number("level", level, above=0, below=1)
    from scipy import stats

    def is_enough(seeds: int) -> bool:
        critical = stats.t.ppf((1 + level) / 2, seeds - 1)
        shift = difference / deviation * math.sqrt(seeds)
        wrong_side = stats.nct.cdf(-critical, seeds - 1, shift)  # NaN where SciPy finds it too small
        return float(stats.nct.sf(critical, seeds - 1, shift) + np.nan_to_num(wrong_side)) >= power

    seeds = bisect.bisect_left(range(MOST_SEEDS + 1), True, lo=2, key=is_enough)
    if seeds > MOST_SEEDS:
        raise ValueError(
            f"difference={difference:g} takes more than {MOST_SEEDS:,} seeds at a deviation of {deviation:g}"
        )
    return seeds
