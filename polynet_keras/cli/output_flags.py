"""`--output`: the main output of a command, and checks of paths before the work begins."""

import os
from collections.abc import Sequence
from pathlib import Path

from absl import flags

from polynet_keras.cli.headings import Heading


def define_output_flag(values: flags.FlagValues, text: str, default: str | None = None) -> None:
    Heading(values, "Output").string("output", default, text if default else f"{text} [must be named]")


def output_of(values: flags.FlagValues, what: str) -> str:
    """Returns the value of `--output`.

    Args:
        values: the command's flags.
        what: the meaning of the flag, for the message if it is missing: "the folder to write".

    Raises:
        ValueError: the flag is missing.
    """
    if not values.output:
        raise ValueError(f"--output is missing: {what}")
    return values.output


def check_new_file(flag: str, path: str, suffixes: Sequence[str] = ()) -> Path:
    """Returns the path of a new file that can be written.

    Raises:
        ValueError: the file exists, its folder cannot be written, or its name has a wrong ending.
    """
    if suffixes and (not path.endswith(tuple(suffixes)) or Path(path).name in suffixes):
        raise ValueError(f"--{flag}={path} must end in {' or '.join(suffixes)}")
    if Path(path).exists():
        raise ValueError(f"--{flag}={path} already exists; name a new file, or remove this one")
    return check_file(flag, path)


def check_file(flag: str, path: str) -> Path:
    """Returns the path of a file that can be written, and may exist.

    Raises:
        ValueError: its folder does not exist or cannot be written.
    """
    folder = Path(path).parent
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        raise ValueError(f"--{flag}={path}: its folder does not exist or cannot be written; make it first")
    return Path(path)
