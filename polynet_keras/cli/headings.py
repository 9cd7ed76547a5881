"""The flags of a command under headings, and the help that shows them."""

import shutil
import textwrap
from collections.abc import Sequence

from absl import flags

WIDTH = 110
"""The longest line of a help, in characters."""
NAMES = 26
"""The widest column of names; the text of a longer name begins on the next line."""


class Heading:
    """Defines flags that the help of a command shows under one heading, in the order in which they are defined.

    absl keeps flags by the module that defines them: the heading takes the module's place.
    """

    def __init__(self, values: flags.FlagValues, title: str):
        self._place = {"flag_values": values, "module_name": title}

    def string(self, name: str, default: str | None, text: str) -> None:
        flags.DEFINE_string(name, default, text, **self._place)

    def integer(self, name: str, default: int | None, text: str, lowest: int | None = None) -> None:
        flags.DEFINE_integer(name, default, text, lower_bound=lowest, **self._place)

    def number(self, name: str, default: float | None, text: str) -> None:
        flags.DEFINE_float(name, default, text, **self._place)

    def switch(self, name: str, default: bool | None, text: str) -> None:
        flags.DEFINE_bool(name, default, text, **self._place)

    def list(self, name: str, default: Sequence[str] | None, text: str) -> None:
        flags.DEFINE_list(name, default, text, **self._place)

    def old_name(self, old: str, new: str) -> None:
        flags.DEFINE_alias(old, new, **self._place)


def headed(headings: dict[str, dict[str, str]]) -> str:
    """Names and what is said of them, by heading: two columns, as wide as the terminal."""
    if not headings:
        return ""
    width = min(WIDTH, shutil.get_terminal_size().columns)
    longest = max(len(name) for texts in headings.values() for name in texts)
    column = min(NAMES, longest) + 4
    parts = []
    for title, texts in headings.items():
        lines = [title]
        for name, text in texts.items():
            first = f"  {name:<{column - 2}}"
            if len(name) > column - 4:
                lines.append(first.rstrip())
                first = " " * column
            lines += textwrap.wrap(
                text,
                max(width, column + 20),
                initial_indent=first,
                subsequent_indent=" " * column,
                break_on_hyphens=False,
            )
        parts.append("\n".join(lines))
    return "\n\n".join(parts)


def flag_help(values: flags.FlagValues, left_out: Sequence[str] = ()) -> str:
    """The flags of a command by heading, each with what it is for and its default in brackets."""
    headings = {
        title: {_shown(flag): _text(flag) for flag in defined if flag.name not in left_out}
        for title, defined in values.flags_by_module_dict().items()
    }
    return headed({title: texts for title, texts in headings.items() if texts})


def _shown(flag: flags.Flag) -> str:
    return f"--[no]{flag.name}" if flag.boolean else f"--{flag.name}"


def _text(flag: flags.Flag) -> str:
    default = flag.default
    if default is None or default is False or default == []:
        return flag.help
    if default is True:
        return f"{flag.help} [on]"
    if isinstance(default, list):
        return f"{flag.help} [{','.join(default)}]"
    return f"{flag.help} [{default:g}]" if isinstance(default, float) else f"{flag.help} [{default}]"
