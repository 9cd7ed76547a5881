"""Checks of arguments: a `ValueError` names the argument, its value and what is accepted."""

import dataclasses
import difflib
import math
import typing
from collections.abc import Iterable, Mapping, Sequence
from numbers import Integral, Real
from typing import Any


def is_number(value) -> bool:
    """Whether a value is a finite real number; `True` is not one."""
    return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)


def is_integer(value) -> bool:
    """Whether a value is an integer of Python or NumPy; `True` is not one."""
    return isinstance(value, Integral) and not isinstance(value, bool)


def plain_numbers(settings) -> None:
    """Converts the numbers of a frozen dataclass to Python's own types, and those of fields declared `float` to floats.

    Equal settings are then equal in JSON too, and schedules compute in floats.
    """
    for field in dataclasses.fields(settings):
        value = getattr(settings, field.name)
        if isinstance(value, bool) or not isinstance(value, Real):
            continue
        if float in (field.type, *typing.get_args(field.type)):
            object.__setattr__(settings, field.name, float(value))
        elif isinstance(value, Integral):
            object.__setattr__(settings, field.name, int(value))


def check_number(
    name: str,
    value,
    *,
    above: float | None = None,
    at_least: float | None = None,
    at_most: float | None = None,
    below: float | None = None,
) -> None:
    """Raises a `ValueError` unless a value is a finite number within bounds; `above` and `below` are exclusive."""
    fits = is_number(value) and (above is None or value > above) and (at_least is None or value >= at_least)
    if not fits or (at_most is not None and value > at_most) or (below is not None and value >= below):
        bounds = ((">", above), ("≥", at_least), ("≤", at_most), ("<", below))
        wanted = " and ".join(f"{sign} {bound:g}" for sign, bound in bounds if bound is not None)
        raise ValueError(f"{name}={value!r} must be a finite number {wanted}")


def check_integer(name: str, value, at_least: int, at_most: int | None = None) -> None:
    if not is_integer(value) or int(value) < at_least or (at_most is not None and int(value) > at_most):
        wanted = f"of at least {at_least}" if at_most is None else f"from {at_least} to {at_most}"
        raise ValueError(f"{name}={value!r} must be an integer {wanted}")


def check_flag(name: str, value) -> None:
    if not isinstance(value, bool):
        raise ValueError(f"{name}={value!r} must be True or False")


def check_choice(name: str, value, choices: Sequence[str]) -> None:
    if not isinstance(value, str) or value not in choices:
        raise ValueError(f"{name}={value!r} must be one of {', '.join(choices)}{near_name(value, choices)}")


def near_name(value: object, choices: Iterable[str]) -> str:
    """Returns `; did you mean ...?` with the choice nearest to a value, or `""` if no choice is near."""
    text = value.lower() if isinstance(value, str) else ""
    near = {choice.lower(): choice for choice in choices}
    found = difflib.get_close_matches(text, near, 1)
    return f"; did you mean {near[found[0]]}?" if found else ""


def settle_own(settings, choice: str, kind: str | None, defaults: Mapping[Any, Mapping[str, Any]]) -> None:
    """Replaces `None` in a frozen dataclass by the defaults of the chosen kind.

    Args:
        settings: the dataclass.
        choice: the name of the setting that chooses a kind, for the message.
        kind: the chosen kind, or None.
        defaults: for each kind, its defaults by setting. Settings of other kinds must be `None`.
    """
    for name in dict.fromkeys(name for own in defaults.values() for name in own):
        value = getattr(settings, name)
        if name in defaults[kind]:
            if value is None:
                object.__setattr__(settings, name, defaults[kind][name])
        elif value is not None:
            owners = " and ".join(owner for owner, own in defaults.items() if name in own)
            chosen = f"and not of {choice}={kind}" if kind is not None else f"and no {choice} is chosen"
            raise ValueError(f"{name}={value!r} is a setting of {choice}={owners}, {chosen}")
