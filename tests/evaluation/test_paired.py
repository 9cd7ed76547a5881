"""McNemar's test and its interval: published numbers, the definition drawn at random, and how often it is right."""

import itertools

import numpy as np
import pytest
from scipy.stats import binomtest, multinomial

from polynet_keras.evaluation.paired import Paired


def test_images_are_counted_by_who_is_right():
    first = np.array([1, 1, 1, 0, 0, 0, 0, 1, 1, 1], bool)
    second = np.array([1, 0, 0, 1, 0, 0, 0, 1, 1, 0], bool)
    paired = Paired.of(first, second)
    assert paired == Paired(both=3, first_only=3, second_only=1, neither=3)
    assert (paired.images, paired.first_hits, paired.second_hits, paired.difference) == (10, 6, 4, 0.2)
    assert all(type(value) is int for value in vars(paired).values())
    with pytest.raises(ValueError, match="there is no image that both models were evaluated on"):
        Paired.of(first[:0], second[:0])


@pytest.mark.parametrize(
    ("paired", "p_value"),
    [
        # Bentur et al. 2009, in Fagerland, Lydersen and Laake, BMC Medical Research Methodology 13:91, 2013, Table 6.
        (Paired(1, 1, 7, 12), 0.0703),
        # Cavo et al. 2012, there too.
        (Paired(59, 6, 16, 80), 0.0525),
        # The example of statsmodels' tests of `mcnemar`.
        (Paired(101, 121, 59, 33), 4.434444926375551e-06),
        (Paired(5, 0, 0, 5), 1.0),
    ],
)
def test_published_p_values(paired, p_value):
    assert paired.p_value == pytest.approx(p_value, rel=1e-3)


@pytest.mark.parametrize(
    ("wins", "losses", "images"),
    [(1, 7, 21), (6, 16, 161), (12, 3, 30), (1, 0, 5), (6, 0, 6), (9, 1, 10), (40, 60, 50_000), (2000, 1500, 50_000)],
)
def test_the_interval_is_that_of_its_definition(wins, losses, images):
    """Drawn at random: the limits of the share of discordant images, times those of the share of wins among them."""
    low, high = Paired(0, wins, losses, images - wins - losses).interval()
    random, draws, discordant = np.random.default_rng(0), 400_000, wins + losses

    def beta(a, b):
        return random.beta(a, b, draws) if a and b else np.full(draws, 0.0 if b else 1.0)

    shares = beta(discordant, images - discordant + 1), beta(discordant + 1, images - discordant)
    lowest, highest = beta(wins, losses + 1), beta(wins + 1, losses)
    expected_low = min(np.quantile(share * (2 * lowest - 1), 0.025) for share in shares)
    expected_high = max(np.quantile(share * (2 * highest - 1), 0.975) for share in shares)
    near = 1e-2 * (high - low)
    assert low == pytest.approx(expected_low, abs=near)
    assert high == pytest.approx(expected_high, abs=near)


@pytest.mark.parametrize(
    ("paired", "expected"),
    [
        # Without an image on which they differ: the rule of three, 3.69 / n for both sides of 95 %.
        (Paired(5, 0, 0, 5), (-(1 - 0.025**0.1), 1 - 0.025**0.1)),
        (Paired(90_000, 0, 0, 10_000), (-(1 - 0.025**1e-5), 1 - 0.025**1e-5)),
        # They differ on all: what is known of the share of wins is known of the difference.
        (Paired(0, 8, 2, 0), tuple(2 * np.array(binomtest(8, 10).proportion_ci(0.95)) - 1)),
        (Paired(0, 7, 3, 0), tuple(2 * np.array(binomtest(7, 10).proportion_ci(0.95)) - 1)),
    ],
)
def test_ends_of_the_range(paired, expected):
    assert paired.interval() == pytest.approx(expected, abs=1e-4)


@pytest.mark.slow
def test_the_interval_agrees_with_the_test():
    """For all outcomes of 8 images, and both ways around."""
    for wins, losses in itertools.product(range(9), repeat=2):
        if wins + losses > 8:
            continue
        paired = Paired(0, wins, losses, 8 - wins - losses)
        low, high = paired.interval()
        assert low <= paired.difference <= high
        assert (low > 0 or high < 0) == (paired.p_value < 0.05) == (paired.better is not None)
        assert paired.better == (None if paired.p_value >= 0.05 else 0 if wins > losses else 1)
        turned = Paired(0, losses, wins, 8 - wins - losses)
        assert turned.interval() == pytest.approx((-high, -low), abs=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("images", [8, 25])
def test_the_interval_covers_the_true_difference(images):
    """Not by simulation: all outcomes, each with its probability, for many true shares of wins and losses."""
    outcomes = [(w, n) for w in range(images + 1) for n in range(images + 1 - w)]
    intervals = np.array([Paired(0, w, n, images - w - n).interval() for w, n in outcomes])
    counts = np.array([(w, n, images - w - n) for w, n in outcomes])
    grid = np.linspace(0, 1, 21)
    for win, loss in itertools.product(grid, repeat=2):
        if win + loss > 1 + 1e-9:
            continue
        shares = np.array([win, loss, max(0.0, 1 - win - loss)])
        covered = (intervals[:, 0] - 1e-5 <= win - loss) & (win - loss <= intervals[:, 1] + 1e-5)
        coverage = multinomial.pmf(counts, images, shares / shares.sum())[covered].sum()
        assert coverage >= 0.95, (win, loss)
