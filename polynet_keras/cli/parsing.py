"""Reads a command's flags from its words; mistakes are reported in this command line's words, not in absl's."""

import difflib
import re
from collections.abc import Iterable, Sequence

from absl import flags

from polynet_keras.basics.names import shown
from polynet_keras.cli.headings import is_rare
from polynet_keras.cli.renamed import old_names

LONGEST = 200
"""The largest number of characters of a user's word in a message."""


def parsed(command: str, values: flags.FlagValues, words: Sequence[str]) -> list[str]:
    """Reads a command's flags into `values`; returns its other arguments.

    Raises:
        ValueError: a flag is unknown, has no value, or has a value that it does not accept.
    """
    try:
        return values([f"polynet {command}", *words])[1:]
    except flags.UnrecognizedFlagError as error:
        name = error.flagname
        near = _near_flag(name, list(_names(command, values)))
        help_flag = "--helpfull" if any(is_rare(values[known]) for known in values) else "--help"
        raise ValueError(
            f"unknown flag --{shown(name, LONGEST)} of polynet {command}{near or ';'} "
            f"`polynet {command} {help_flag}` lists all"
        ) from None
    except flags.IllegalFlagValueError as error:
        raise ValueError(_of_value(str(error))) from None
    except flags.Error as error:
        missing = re.fullmatch(r"Missing value for flag -*(\S+)", str(error))
        raise ValueError(f"--{missing[1]} needs a value" if missing else str(error)) from None


def _names(command: str, values: flags.FlagValues) -> Iterable[str]:
    for name in values:
        if name not in old_names(command):
            yield name
            if values[name].boolean:
                yield f"no{name}"


def _near_flag(word: str, known: Sequence[str]) -> str:
    """Returns `; did you mean --...?` for a flag that is mistyped, shortened, or given by initials, such as `lr`."""
    plain = word.replace("-", "_").lower()
    near = difflib.get_close_matches(plain, known, n=1, cutoff=0.7)
    near += [name for name in known if plain == "".join(part[:1] for part in name.split("_"))]
    near += [name for name in known if plain and name.startswith(plain)]
    return f"; did you mean --{near[0]}?" if near else ""


def _of_value(message: str) -> str:
    """Rewords absl's message "flag --epochs=many: must be a whole number"."""
    match = re.fullmatch(r"flag (--\w+)=(.*?): (\(?'Non-boolean|must be).*", message, re.DOTALL)
    if match is None:
        return message
    flag, value = match[1], shown(match[2], LONGEST)
    if match[3] == "must be":
        return f"{flag}={value} {message[match.start(3) :]}"
    return f"{flag}={value} must be true or false; {flag} alone and --no{flag[2:]} say the same"
