"""The flags of a command under headings, and its help."""

import os
import shutil
import sys
import textwrap
from collections.abc import Callable, Sequence
from typing import Any

from absl import flags

WIDTH = 110
"""The longest line of a help, in characters."""
NAMES = 26
"""The widest column of names; the text of a longer name begins on the next line."""


class Heading:
    """Defines flags that the help of a command shows under one heading, in the order of their definition.

    absl stores flags by the module that defines them: the heading takes the module's place.

    Args:
        values: the command's flags.
        title: the topic of the flags.
        rare: whether only `--helpfull` shows them.
    """

    def __init__(self, values: flags.FlagValues, title: str, rare: bool = False):
        self._values = values
        self._place = {"flag_values": values, "module_name": title}
        self._rare = rare

    def string(self, name: str, default: str | None, text: str, choices: Sequence[str] = ()) -> None:
        """Defines a flag for a text; a shell completes its `choices`, and the command checks the value."""
        self._define(flags.DEFINE_string, name, default, text, choices=choices)

    def integer(
        self, name: str, default: int | None, text: str, lowest: int | None = None, choices: Sequence[int] = ()
    ) -> None:
        self._define(flags.DEFINE, _Whole(lowest), name, default, text, choices=choices)

    def number(self, name: str, default: float | None, text: str) -> None:
        self._define(flags.DEFINE, _Number(), name, default, text)

    def switch(self, name: str, default: bool | None, text: str) -> None:
        self._define(flags.DEFINE_bool, name, default, text)

    def list(self, name: str, default: Sequence[str] | None, text: str) -> None:
        self._define(flags.DEFINE_list, name, default, text)

    def repeated(self, name: str, text: str) -> None:
        """A string that may be given several times."""
        self._define(flags.DEFINE_multi_string, name, [], text)
        self._values[name].help = text  # without absl's addition

    def old_name(self, old: str, new: str) -> None:
        flags.DEFINE_alias(old, new, **self._place)
        self._values[old].new_name = new

    def _define(self, define: Callable[..., Any], *arguments: Any, choices: Sequence[str] | Sequence[int] = ()) -> None:
        flag = self._values[define(*arguments, **self._place).name]
        flag.choices, flag.is_rare = tuple(map(str, choices)), self._rare


class _Whole(flags.ArgumentParser):
    syntactic_help = "a whole number"

    def __init__(self, lowest: int | None):
        self.lowest = lowest

    def parse(self, argument: str | int) -> int:
        try:
            number = int(argument)
        except ValueError:
            raise ValueError("must be a whole number") from None
        if self.lowest is not None and number < self.lowest:
            raise ValueError(f"must be a whole number of at least {self.lowest}")
        return number


class _Number(flags.ArgumentParser):
    syntactic_help = "a number"

    def parse(self, argument: str | float) -> float:
        try:
            return float(argument)
        except ValueError:
            raise ValueError("must be a number") from None


def headed(headings: dict[str, dict[str, str]]) -> str:
    """Formats names and descriptions under headings: two columns, as wide as the terminal."""
    if not headings:
        return ""
    width = min(WIDTH, shutil.get_terminal_size().columns)
    longest = max(len(name) for texts in headings.values() for name in texts)
    column = min(NAMES, longest) + 4
    parts = []
    for title, texts in headings.items():
        lines = [bold(title)]
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


def bold(text: str) -> str:
    """Returns a text in bold type if standard output is a terminal and the user allows it (no-color.org)."""
    is_terminal = sys.stdout is not None and sys.stdout.isatty() and os.environ.get("TERM") != "dumb"
    return text if os.environ.get("NO_COLOR") or not is_terminal else f"\033[1m{text}\033[0m"


def flag_help(values: flags.FlagValues, left_out: Sequence[str] = (), full: bool = True) -> str:
    """Formats the flags of a command by heading, each with its description and its default in brackets.

    Args:
        values: the command's flags.
        left_out: flags that are not shown.
        full: whether rare flags are shown.
    """
    headings = {
        title: {flag_name(flag): flag_text(flag) for flag in defined if flag.name not in left_out}
        for title, defined in values.flags_by_module_dict().items()
        if full or not all(is_rare(flag) for flag in defined)
    }
    return headed({title: texts for title, texts in headings.items() if texts})


def is_rare(flag: flags.Flag) -> bool:
    """Whether only `--helpfull` shows a flag."""
    return getattr(flag, "is_rare", False)


def choices_of(flag: flags.Flag) -> Sequence[str]:
    """Returns the values that a flag takes; empty if there are too many to list."""
    return getattr(flag, "choices", ())


def flag_name(flag: flags.Flag) -> str:
    """A flag as one writes it: `--crops`, and a switch as `--[no]flip`."""
    return f"--[no]{flag.name}" if flag.boolean else f"--{flag.name}"


def flag_text(flag: flags.Flag) -> str:
    """Returns a flag's description with its defaults in brackets."""
    of_photographs = getattr(flag, "of_photographs", None)
    text = _text_and_default(flag)
    return text if of_photographs is None else f"{text[:-1]}; photographs: {of_photographs}]"


def _text_and_default(flag: flags.Flag) -> str:
    """Returns a flag's description with its default in brackets, from the description itself or the flag."""
    default = flag.default
    if default is None or default == []:
        return flag.help if flag.help.endswith("]") else f"{flag.help} [none]"
    if isinstance(default, bool):
        return f"{flag.help} [{'on' if default else 'off'}]"
    if isinstance(default, list):
        return f"{flag.help} [{','.join(default)}]"
    return f"{flag.help} [{default:g}]" if isinstance(default, float) else f"{flag.help} [{default}]"
