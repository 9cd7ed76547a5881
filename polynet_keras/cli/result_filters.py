"""`--filter` of `polynet results`: selects rows of the table."""

import operator
import re
from collections.abc import Callable
from typing import Any

OPERATORS: dict[str, Callable[[Any, Any], bool]] = {
    ">=": operator.ge,
    "<=": operator.le,
    "!=": operator.ne,
    "=": operator.eq,
    ">": operator.gt,
    "<": operator.lt,
}


def result_filter(text: str, columns: dict[str, type]) -> Callable[[object], bool]:
    """Returns the function of a condition such as `top1>=80` or `dataset=photos`; it tests a result.

    Args:
        text: a column, an operator and a value, which takes the rest. Numbers are compared as numbers, texts letter by
            letter, so that dates are in order.
        columns: the type of each column.

    Raises:
        ValueError: the text is not a condition, names no column, or compares a number with something else.
    """
    match = re.fullmatch(r"\s*(\w+)\s*(>=|<=|!=|==?|>|<)\s*(.*)", text, re.DOTALL)
    if match is None:
        raise ValueError(
            f"--filter={text} is not a condition; write a column, one of {' '.join(OPERATORS)}, and a value"
        )
    column, sign, value = match.groups()
    if column not in columns:
        raise ValueError(f"--filter={text}: {column} must be one of {', '.join(columns)}")
    expected: str | float = value
    if columns[column] is not str:
        try:
            expected = float(value)
        except ValueError:
            raise ValueError(f"--filter={text}: {column} is a number; got {value!r}") from None
    compare = OPERATORS["=" if sign == "==" else sign]

    def holds(result: object) -> bool:
        found = getattr(result, column)
        return found is not None and compare(found, expected)

    return holds
