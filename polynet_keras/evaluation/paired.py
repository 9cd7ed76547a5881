"""Two models on the same images: the difference of their accuracies, and whether chance explains it."""

from dataclasses import dataclass

import numpy as np

from polynet_keras.basics.extras import require_extra

LEVEL = 0.95
"""Level of the interval and of the decision."""
NODES = 100
"""Nodes of the integral in a limit: its error is below a thousandth of the interval."""


@dataclass(frozen=True)
class Paired:
    """Correct predictions of two models on the same images.

    Attributes:
        both, first_only, second_only, neither: images that both, one or neither predicted correctly.

    Examples:
        >>> paired = Paired(both=80, first_only=15, second_only=4, neither=1)
        >>> round(paired.difference, 2), round(paired.p_value, 3)
        (0.11, 0.019)
        >>> paired.better
        0
    """

    both: int
    first_only: int
    second_only: int
    neither: int

    @classmethod
    def of(cls, first: np.ndarray, second: np.ndarray) -> "Paired":
        """Counts two bool arrays (images,) of correct predictions, one for each model.

        Raises:
            ValueError: there is no image.
        """
        if not len(first):
            raise ValueError("there is no image that both models were evaluated on")
        parts = first & second, first & ~second, ~first & second, ~first & ~second
        return cls(*(int(np.count_nonzero(part)) for part in parts))

    @property
    def images(self) -> int:
        return self.both + self.first_only + self.second_only + self.neither

    @property
    def first_hits(self) -> int:
        return self.both + self.first_only

    @property
    def second_hits(self) -> int:
        return self.both + self.second_only

    @property
    def difference(self) -> float:
        """The accuracy of the first minus that of the second, -1 to 1."""
        return (self.first_only - self.second_only) / self.images

    @property
    def p_value(self) -> float:
        """The two-sided p-value of McNemar's exact test (Q. McNemar, Psychometrika 12, 1947).

        If the models were equally good, each would have half of the images that only one of them predicts correctly."""
        require_extra("data", "scipy")
        from scipy.stats import binomtest

        discordant = self.first_only + self.second_only
        return float(binomtest(self.first_only, discordant).pvalue) if discordant else 1.0

    def interval(self) -> tuple[float, float]:
        """The 95 % confidence interval of `difference`, which agrees with the test.

        0 is outside of it if the p-value is below 0.05, and otherwise inside.

        M. P. Fay and K. Lumbard, "Confidence intervals for difference in proportions for matched pairs compatible with
        exact McNemar's or sign tests", Statistics in Medicine 40, 2021: the exact (Clopper and Pearson's) limits of two
        shares are melded. The shares are those of the images that only one model predicts correctly, and of the first
        model's among these. There is no proof that the interval covers the true difference at least as often as its
        level; no case that was computed, there or in our tests, refutes it.

        Raises:
            ValueError: SciPy is not installed.
        """
        require_extra("data", "scipy")
        discordant = self.first_only + self.second_only
        return (
            _lower_limit(self.first_only, discordant, self.images),
            -_lower_limit(self.second_only, discordant, self.images),
        )

    @property
    def better(self) -> int | None:
        """0 if the first is better, 1 if the second is; `None` if that is not decided at 95 %."""
        if self.p_value >= 1 - LEVEL:
            return None
        return 0 if self.first_only > self.second_only else 1


def _lower_limit(wins: int, discordant: int, images: int) -> float:
    """Returns the lower limit of `discordant / images * (2 * wins / discordant - 1)`."""
    from scipy.optimize import brentq
    from scipy.special import betainc, betaincinv  # the distribution of beta, and its quantiles

    tail = (1 - LEVEL) / 2
    all_differ = discordant == images
    if not wins:  # the least share of wins is 0, whatever the tail
        return -1.0 if all_differ else -float(betaincinv(discordant + 1, images - discordant, 1 - tail))
    nodes, weights = np.polynomial.legendre.leggauss(NODES)
    quantiles, weights = (1 + nodes) / 2, weights / 2

    def limit(discordant_share: np.ndarray) -> float:
        def excess(difference: float) -> float:
            share_of_wins = np.clip((1 + difference / discordant_share) / 2, 0, 1)
            return weights @ betainc(wins, discordant - wins + 1, share_of_wins) - tail

        return float(brentq(excess, -1, 1, xtol=1e-9))

    least = betaincinv(discordant, images - discordant + 1, quantiles)
    most = np.ones(NODES) if all_differ else betaincinv(discordant + 1, images - discordant, quantiles)
    return min(limit(least), limit(most))
