"""Writes the page of all commands and their flags, from the tables that the command line reads them from.

python tools/list_flags.py --write docs/flags.md
"""

import argparse
import importlib
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from absl import flags

from polynet_keras.cli.headings import choices_of, flag_name, flag_text, is_rare
from polynet_keras.cli.main import COMMANDS, GROUPS
from polynet_keras.cli.renamed import FLAGS, PLACES

HEAD = """\
# Commands and flags

<!-- python tools/list_flags.py --write docs/flags.md -->

This page lists the commands and all their flags, in the words of `polynet COMMAND --helpfull`. The [guide](command_line.md) introduces them.

* Write `--flag VALUE` or `--flag=VALUE`, and a switch as `--flip` or `--noflip`.
* The default is in brackets.
* The text of a CHOICE names the accepted values. An INTEGER or a NUMBER may have limits: an error names them. Commas separate the items of a LIST.
* `--help` leaves out the sections marked *rare*.
* Old names of flags still work, with a warning.
"""  # noqa: E501 a page's lines are longer
TYPES = {"a whole number": "INTEGER", "a number": "NUMBER", "a comma separated list": "LIST"}
"""By what a flag's parser says that it takes; the others take a text."""

Section = tuple[str, tuple[str, ...]]
"""A title of a command's help, and a line for each of its flags, in Markdown."""


def page() -> str:
    parts, listed = [HEAD], {}
    for group, commands in GROUPS.items():
        parts.append(f"## {group}\n")
        for command in commands:
            parts += _about(command)
            parts += _flags(command, listed)
    return "\n".join(parts)


def _about(command: str) -> Iterator[str]:
    purpose = COMMANDS[command]
    usage = f"polynet {command} {importlib.import_module(f'polynet_keras.cli.{command}').USAGE}".rstrip()
    yield f"### polynet {command}\n\n{purpose[0].upper()}{purpose[1:]}.\n\n```\nusage: {usage}\n```\n"


def _flags(command: str, listed: dict[Section, str]) -> Iterator[str]:
    """The flags of a command; sections that another one has in the same words are named.

    Args:
        listed: by section, the command that the page lists it under.
    """
    elsewhere: dict[str, list[str]] = {}
    for section in _sections(command):
        first = listed.setdefault(section, command)
        if first == command:
            title, lines = section
            yield "\n".join([f"{title}\n", *lines, ""])
        else:
            elsewhere.setdefault(first, []).append(section[0])
    for first, titles in elsewhere.items():
        yield f"As in [polynet {first}](#polynet-{first}): {', '.join(titles)}.\n"
    old = [f"`--{name}` is now `--{new}`" for name, new in FLAGS.get(command, {}).items()]
    if command in PLACES:
        argument, new = PLACES[command]
        old.append(f"an argument after {argument} is now `--{new}`")
    if old:
        yield f"Old names: {', '.join(old)}.\n"


def _sections(command: str) -> Iterator[Section]:
    values = flags.FlagValues()
    importlib.import_module(f"polynet_keras.cli.{command}").define_flags(values)
    for title, defined in values.flags_by_module_dict().items():
        rare = " (*rare*)" if all(map(is_rare, defined)) else ""
        yield f"**{title}**{rare}", tuple(_line(flag) for flag in defined)


def _line(flag: flags.Flag) -> str:
    again = " (*repeatable*)" if isinstance(flag, flags.MultiFlag) else ""
    return f"* `{flag_name(flag)}{_value(flag)}`{again}: {flag_text(flag)}"


def _value(flag: flags.Flag) -> str:
    """What is written after a flag."""
    if flag.boolean:
        return ""
    return " CHOICE" if choices_of(flag) else f" {TYPES.get(flag.parser.syntactic_help, 'TEXT')}"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Writes the page of all commands and their flags.")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--write", type=Path, metavar="PAGE", help="write this page")
    what.add_argument("--check", type=Path, metavar="PAGE", help="fail if this page says something else")
    options = parser.parse_args(arguments)
    if options.write:
        options.write.write_text(page())
    elif options.check.read_text() != page():
        sys.exit(f"{options.check} is out of date; renew it: python tools/list_flags.py --write {options.check}")


if __name__ == "__main__":
    main()
