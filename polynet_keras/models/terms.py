"""The terms of polynomials: words of operator letters, in writing order."""

import itertools
from collections.abc import Iterable

OPERATORS = "FGHJKLMN"
"""The letters of Inception blocks, in the order in which a polynomial must introduce them. `I` is the identity."""

MAX_DEGREE = 8
"""The longest composition that is accepted; the paper stops at 3."""


def by_degree(terms: Iterable[str]) -> list[str]:
    """Sorts terms by degree, then by the letters as they are applied: F, G, FF, GF (which applies F first), HGF."""
    return sorted(terms, key=lambda term: (len(term), term[::-1]))


def introduced(terms: Iterable[str]) -> str:
    """Returns the letters of the terms, in the order of their first application."""
    return "".join(dict.fromkeys("".join(term[::-1] for term in terms)))


def with_powers(term: str) -> str:
    """Writes repeated letters as powers: `FFG` as `F^2G`."""
    runs = ((letter, len(list(run))) for letter, run in itertools.groupby(term))
    return "".join(letter if length == 1 else f"{letter}^{length}" for letter, length in runs)


def sum_of(terms: Iterable[str]) -> str:
    """Writes the residual unit of these terms as a sum."""
    return " + ".join(["I", *map(with_powers, terms)])
