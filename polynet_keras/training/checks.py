"""Checks that the parts of a recipe share: a `ValueError` names the setting, its value and what is accepted."""

import math
from collections.abc import Sequence
from numbers import Integral, Real


def check_number(
    name: str, value, *, above: float | None = None, at_least: float | None = None, at_most: float | None = None
) -> None:
    """A finite number within bounds: `above` excludes its bound."""
    fits = isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)
    fits = fits and (above is None or value > above) and (at_least is None or value >= at_least)
    if not fits or (at_most is not None and value > at_most):
        bounds = ((">", above), ("≥", at_least), ("≤", at_most))
        wanted = " and ".join(f"{sign} {bound:g}" for sign, bound in bounds if bound is not None)
        raise ValueError(f"{name}={value!r} must be a finite number {wanted}")


def check_integer(name: str, value, at_least: int, at_most: int | None = None) -> None:
    if isinstance(value, bool) or not isinstance(value, Integral) or int(value) < at_least:
        raise ValueError(f"{name}={value!r} must be an integer of at least {at_least}")
    if at_most is not None and int(value) > at_most:
        raise ValueError(f"{name}={value} must be at most {at_most}")


def check_flag(name: str, value) -> None:
    if not isinstance(value, bool):
        raise ValueError(f"{name}={value!r} must be True or False")


def check_choice(name: str, value, choices: Sequence[str]) -> None:
    if not isinstance(value, str) or value not in choices:
        raise ValueError(f"{name}={value!r} must be one of {', '.join(choices)}")
