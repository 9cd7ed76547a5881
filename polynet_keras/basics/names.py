"""Names of files and classes: shown in messages, quoted for a shell, and checked for classes."""

import os
import shlex
import unicodedata
from collections.abc import Iterable, Sequence

ESCAPED = ("Cc", "Cf", "Cs", "Zl", "Zp")
"""Unicode categories of characters that move a cursor, reverse text, end a line, or are not text."""
QUOTED = 80
"""The number of characters of a name that a message quotes: a file may hold names of megabytes."""


def shown(name: str | os.PathLike, most: int | None = None) -> str:
    """Returns a name for a message, in one line. Characters that are not text or control the terminal are escaped.

    A byte that is not UTF-8, which Python keeps as a surrogate, becomes `\\xe9`, a line feed `\\n`.

    Args:
        name: the name.
        most: the largest number of characters of the name.
    """
    name = os.fspath(name)
    if most is not None and len(name) > most:
        name = f"{name[:most]}…"
    if name.isprintable():
        return name
    return "".join(_escaped(letter) if is_escaped(letter) else letter for letter in name)


def quoted(name: object) -> str:
    """Quotes a name from a file, which may have any content and length, for a message."""
    return f"'{shown(str(name), QUOTED)}'"


def number_of(number: int, noun: str, plural: str = "") -> str:
    """Returns a number with its noun: `1 shard`, `1,024 shards`.

    Args:
        number: the number.
        noun: the noun, in the singular.
        plural: the plural, if it is not the noun with an s.
    """
    return f"{number:,} {noun if number == 1 else plural or f'{noun}s'}"


def some_of(texts: Sequence[str], most: int, between: str = ", ") -> str:
    """Joins the first texts for a message, and says how many more there are."""
    more = f" and {len(texts) - most:,} more" if len(texts) > most else ""
    return between.join(texts[:most]) + more


def listed(names: Sequence[str], most: int = 5) -> str:
    """Quotes the first names from files for a message, and says how many more there are."""
    return some_of([f"'{shown(name)}'" for name in names], most)


def size_text(shape: Iterable[object]) -> str:
    """Returns a shape as people write it, `331 x 331 x 3`; `any` is a side of any size."""
    return (
        " x ".join("any" if side is None else repr(side) if isinstance(side, str) else str(side) for side in shape)
        or "a single number"
    )


def is_escaped(letter: str) -> bool:
    """Whether a character must be escaped before it is shown."""
    return unicodedata.category(letter) in ESCAPED


def _escaped(letter: str) -> str:
    if "\udc80" <= letter <= "\udcff":
        return f"\\x{ord(letter) - 0xDC00:02x}"
    return letter.encode("unicode_escape").decode()


def shell_quoted(words: Iterable[str]) -> str:
    """Returns a command line that you can print, and paste into bash or zsh, whatever bytes its words hold."""
    return " ".join(shlex.quote(word) if shown(word) == word else _dollar_quoted(word) for word in words)


def _dollar_quoted(word: str) -> str:
    printable = bytes(range(0x20, 0x7F)).translate(None, b"'\\")
    escaped = (chr(byte) if byte in printable else f"\\x{byte:02x}" for byte in os.fsencode(word))
    return f"$'{''.join(escaped)}'"


def check_class_names(names: Iterable[str], where: str) -> None:
    """Checks class names for JSON, CSV, text files with one name a line, and answers of the service.

    Raises:
        ValueError: a name is not UTF-8, or holds a line break or a control character.
    """
    for name in names:
        if any(unicodedata.category(letter) in ("Cc", "Cs", "Zl", "Zp") for letter in name):
            raise ValueError(
                f"{where} has the class '{shown(name)}': a class's name must be UTF-8 text without control characters; "
                "rename it"
            )
