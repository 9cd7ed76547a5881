"""Names of files and classes: how a message shows them, how a shell takes them, and which ones a class may have."""

import os
import shlex
import unicodedata
from collections.abc import Iterable, Sequence

ESCAPED = ("Cc", "Cf", "Cs", "Zl", "Zp")
"""Unicode's categories of what moves a cursor, turns text around, ends a line, or is no text."""
QUOTED = 80
"""Characters of a name that are quoted: a file may have names of megabytes."""


def shown(name: str | os.PathLike, most: int | None = None) -> str:
    """A name as a message may hold it, in one line: what is no text, or would command the terminal, is escaped.

    A byte that is not UTF-8, which Python keeps as a surrogate, becomes `\\xe9`, a line feed `\\n`.

    Args:
        most: characters of it that are shown.
    """
    name = os.fspath(name)
    if most is not None and len(name) > most:
        name = f"{name[:most]}…"
    if name.isprintable():
        return name
    return "".join(_escaped(letter) if is_escaped(letter) else letter for letter in name)


def quoted(name: object) -> str:
    """A name out of a file, which may have any content and length, for a message."""
    return f"'{shown(str(name), QUOTED)}'"


def number_of(number: int, noun: str, plural: str = "") -> str:
    """A number of things: `1 shard`, `1,024 shards`.

    Args:
        plural: of a noun that takes more than an s.
    """
    return f"{number:,} {noun if number == 1 else plural or f'{noun}s'}"


def some_of(texts: Sequence[str], most: int, between: str = ", ") -> str:
    """Texts for a message: the first ones, and how many more there are."""
    more = f" and {len(texts) - most:,} more" if len(texts) > most else ""
    return between.join(texts[:most]) + more


def listed(names: Sequence[str], most: int = 5) -> str:
    """Names out of files for a message, in quotes: the first ones, and how many more there are."""
    return some_of([f"'{shown(name)}'" for name in names], most)


def size_text(shape: Iterable[object]) -> str:
    """A shape as people write it, `331 x 331 x 3`; `any` stands for a side of any size."""
    return (
        " x ".join("any" if side is None else repr(side) if isinstance(side, str) else str(side) for side in shape)
        or "a single number"
    )


def is_escaped(letter: str) -> bool:
    """Whether a letter cannot be shown as it is."""
    return unicodedata.category(letter) in ESCAPED


def _escaped(letter: str) -> str:
    if "\udc80" <= letter <= "\udcff":
        return f"\\x{ord(letter) - 0xDC00:02x}"
    return letter.encode("unicode_escape").decode()


def shell_quoted(words: Iterable[str]) -> str:
    """A command line that can be printed, and pasted into bash or zsh, whatever bytes its words hold."""
    return " ".join(shlex.quote(word) if shown(word) == word else _dollar_quoted(word) for word in words)


def _dollar_quoted(word: str) -> str:
    printable = bytes(range(0x20, 0x7F)).translate(None, b"'\\")
    escaped = (chr(byte) if byte in printable else f"\\x{byte:02x}" for byte in os.fsencode(word))
    return f"$'{''.join(escaped)}'"


def check_class_names(names: Iterable[str], where: str) -> None:
    """Class names go into JSON, CSV, text files of one name a line, and answers of the service.

    Raises:
        ValueError: a name that cannot: one that is not UTF-8, or that holds a line's end or a control character.
    """
    for name in names:
        if any(unicodedata.category(letter) in ("Cc", "Cs", "Zl", "Zp") for letter in name):
            raise ValueError(
                f"{where} has the class '{shown(name)}': a class's name must be UTF-8 text without control characters; "
                "rename it"
            )
