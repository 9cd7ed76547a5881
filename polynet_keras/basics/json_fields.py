"""Reads JSON files that describe a model: within bounds, field by field, and without trust in their author."""

import json
import math
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from polynet_keras.basics.files import open_regular
from polynet_keras.basics.names import check_class_names, quoted, shown

MAX_BYTES = 4 << 20
MAX_CLASSES = 100_000
MAX_CLASS_NAME = 500
MAX_TEXT = 4_096
"""Characters. A structure of G5 has 200, a path on Linux has at most this many."""
MAX_SHOWN = 160
LARGEST = 2**53
"""Most programs that read JSON round whole numbers above this one."""


class Fields:
    """The fields of an object; each is taken once, with its type and its bounds checked.

    Each error is a `ValueError` that names the field, its value, and what is accepted.
    """

    def __init__(self, values: Any, name: str = "it"):
        if not isinstance(values, dict):
            raise ValueError(f"{name} must be an object with fields, and is {_brief(values)}")
        self._values = dict(values)
        self._name = "" if name == "it" else f"{name}."

    def __contains__(self, field: str) -> bool:
        return field in self._values

    def take(self, field: str) -> Any:
        """Returns a field without checks of its value."""
        if field not in self._values:
            raise ValueError(f"the field {self._name}{field} is missing")
        return self._values.pop(field)

    def text(self, field: str, default: str | None = None, most: int = MAX_TEXT) -> str:
        """Returns a text that UTF-8 can write. A missing field has the default, if there is one."""
        value = default if default is not None and field not in self else self.take(field)
        if not _is_text(value, most):
            raise self.error(field, value, f"a text of at most {most:,} characters that UTF-8 can write")
        return value

    def whole(self, field: str, most: int = LARGEST) -> int:
        """Returns a whole number from 0 to `most`."""
        value = self.take(field)
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= most:
            raise self.error(field, value, f"a whole number from 0 to {most:,}")
        return value

    def wholes(self, field: str, count: int) -> tuple[int, ...]:
        """Returns an empty list, or one of `count` whole numbers."""
        values = self.take(field)
        if not isinstance(values, list) or len(values) not in (0, count):
            raise self.error(field, values, f"a list of {count:,} whole numbers, or an empty one")
        for place, value in enumerate(values):
            if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= LARGEST:
                raise self.error(f"{field}[{place}]", value, f"a whole number from 0 to {LARGEST:,}")
        return tuple(values)

    def number(self, field: str, most: float, least: float = 0.0) -> float:
        """Returns a finite number from `least` to `most`."""
        value = self.take(field)
        if not is_number(value) or not least <= value <= most:
            raise self.error(field, value, f"a number from {least:g} to {most:g}")
        return value

    def class_names(self, field: str) -> tuple[str, ...]:
        """Returns names in the order of a model's outputs. Two classes may share a name, as ImageNet's cranes do."""
        value = self.take(field)
        if not isinstance(value, list) or not 1 <= len(value) <= MAX_CLASSES:
            raise self.error(field, value, f"a list of 1 to {MAX_CLASSES:,} names")
        for place, name in enumerate(value):
            if not _is_text(name, MAX_CLASS_NAME) or not name.strip():
                reason = f"a text of 1 to {MAX_CLASS_NAME} characters that UTF-8 can write"
                raise self.error(f"{field}[{place}]", name, reason)
        check_class_names(value, "it")
        return tuple(value)

    def object(self, field: str) -> "Fields":
        """Returns the fields of an object within this one."""
        return Fields(self.take(field), f"{self._name}{field}")

    def texts_by_name(self, field: str, most: int = 10_000) -> dict[str, str]:
        """Returns an object of texts."""
        value = self.take(field)
        plain = isinstance(value, dict) and len(value) <= most
        if not plain or not all(_is_text(text, MAX_TEXT) for pair in value.items() for text in pair):
            raise self.error(field, value, f"an object of at most {most:,} texts")
        return value

    def end(self) -> None:
        """Raises a `ValueError` for a field that was not taken."""
        for field in self._values:
            raise ValueError(f"the field {self._name}{_brief(field)[1:-1]} is unknown")

    def error(self, field: str, value: Any, accepted: str) -> ValueError:
        return ValueError(f"{self._name}{field}={_brief(value)} must be {accepted}")


@contextmanager
def fields_of(path: str | os.PathLike, missing: str, wrong: str, most: int = MAX_BYTES) -> Iterator[Fields]:
    """Yields the fields of a file that holds one JSON object. Errors name the file, also errors raised in the block.

    Args:
        path: the file.
        missing: the message if the file cannot be read, with `{}` for the reason.
        wrong: the message if the file holds something else.
        most: the largest size of the file, in bytes.

    Raises:
        ValueError: the file cannot be read, holds something else, or has fields that were not taken.
    """
    name = shown(path)
    try:
        content = _bounded(path, most)
    except OSError as error:
        raise ValueError(f"{name}: {missing.format(error.strerror or error)}") from None
    except ValueError as error:
        raise ValueError(f"{name}: {wrong}: it {error}") from None
    try:
        fields = Fields(json.loads(content, parse_constant=_refuse_constant))
        yield fields
        fields.end()
    except UnicodeDecodeError:
        raise ValueError(f"{name}: {wrong}: it is not UTF-8 text") from None
    except RecursionError:
        raise ValueError(f"{name}: {wrong}: it is nested too deeply") from None
    except (ValueError, TypeError) as error:
        raise ValueError(f"{name}: {wrong}: {error}") from None


def is_number(value: Any) -> bool:
    """Whether a JSON value is a finite number."""
    plain = isinstance(value, (int, float)) and not isinstance(value, bool)
    return plain and abs(value) <= LARGEST and math.isfinite(value)


def is_plain(value: Any, depth: int = 2) -> bool:
    """Whether a value is a text, a number, a boolean, None, or a list or object of such values."""
    if isinstance(value, str):
        return _is_text(value, MAX_TEXT)
    if value is None or isinstance(value, bool) or is_number(value):
        return True
    if isinstance(value, Mapping):
        value = [*value, *value.values()]
    return isinstance(value, list) and depth > 0 and all(is_plain(part, depth - 1) for part in value)


def _bounded(path: str | os.PathLike, most: int) -> bytes:
    with open_regular(path) as file:
        content = file.read(most + 1)
    if len(content) > most:
        raise ValueError(f"has more than {most:,} bytes")
    return content


def _is_text(value: Any, most: int) -> bool:
    if not isinstance(value, str) or len(value) > most:
        return False
    return not any("\ud800" <= letter <= "\udfff" for letter in value)


def _brief(value: Any) -> str:
    """Returns a value as one line of bounded length."""
    if isinstance(value, (list, dict)) and len(value) > 3:
        return f"{'a list' if isinstance(value, list) else 'an object'} of {len(value):,}"
    return quoted(value) if isinstance(value, str) else shown(repr(value), MAX_SHOWN)


def _refuse_constant(name: str) -> None:
    raise ValueError(f"it has {name}, which is not a JSON number")
