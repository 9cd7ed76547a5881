"""`--output`: what a command is there to write, and checks of paths before the work begins."""

import os
from collections.abc import Sequence
from pathlib import Path

from absl import flags

from polynet_keras.cli.headings import Heading


def define_output_flag(values: flags.FlagValues, text: str, default: str | None = None) -> None:
    Heading(values, "Output").string("output", default, text if default else f"{text} [must be named]")


def output_of(values: flags.FlagValues, what: str) -> str:
    """What `--output` names.

    Args:
        what: is named, for a user who did not: "the folder to write".

    Raises:
        ValueError: nothing is named.
    """
    if not values.output:
        raise ValueError(f"--output is missing: {what}")
    return values.output


def check_new_file(flag: str, path: str, suffixes: Sequence[str] = ()) -> Path:
    """A file that is not there yet and can be written.

    Raises:
        ValueError: it is there, or in no folder that can be written, or its name ends in another way.
    """
    if suffixes and (not path.endswith(tuple(suffixes)) or Path(path).name in suffixes):
        raise ValueError(f"--{flag}={path} must end in {' or '.join(suffixes)}")
    if Path(path).exists():
        raise ValueError(f"--{flag}={path} is there already; name a new file")
    return check_file(flag, path)


def check_file(flag: str, path: str) -> Path:
    """A file that can be written, and may be there.

    Raises:
        ValueError: it is in no folder that exists and can be written.
    """
    folder = Path(path).parent
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        raise ValueError(f"--{flag}={path} is in no folder that exists and can be written; make it first")
    return Path(path)
