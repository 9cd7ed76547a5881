"""Flags and arguments with new names: the old ones still work, and one line gives the new name.

`--model` names a model, and `--run_dir` the folder of a run to write. `--output` names any other main output of a
command; flags for additional outputs are named after their content, such as `--report` and `--plot`.
"""

from collections.abc import Sequence

from absl import flags, logging

from polynet_keras.basics.names import shell_quoted
from polynet_keras.cli.headings import Heading

FLAGS = {
    "ablation": {"folder": "output"},
    "crops": {"out": "output"},
    "ensemble": {"weights": "mixture"},
    "evaluate": {"run_dir": "model", "weights": "model"},
    "export": {"run_dir": "model", "weights": "model"},
    "grow": {"run_dir": "model", "weights": "model"},
    "predict": {"run_dir": "model", "weights": "model"},
}
"""The old names of flags with their new names, by command."""

PLACES = {"convert": ("SOURCE", "output"), "records": ("FOLDER", "output")}
"""By command: its one argument, and the flag for the value that used to follow it."""


def define_old_names(command: str, values: flags.FlagValues) -> None:
    """Defines the old names of a command's flags; the new ones are already defined."""
    for old, new in FLAGS.get(command, {}).items():
        Heading(values, "Old names").old_name(old, new)


def old_names(command: str) -> Sequence[str]:
    """Returns the flags that a command's help leaves out."""
    return tuple(FLAGS.get(command, {}))


def settle_old_names(command: str, values: flags.FlagValues, arguments: list[str]) -> list[str]:
    """Warns about old names; returns the arguments that the command takes now."""
    renamed = FLAGS.get(command, {})
    for new in dict.fromkeys(renamed.values()):
        given = [old for old in renamed if renamed[old] == new and values[old].present]
        if values[new].present > sum(values[old].present for old in given):  # absl also counts the old names
            given.append(new)
        if len(given) > 1:
            raise ValueError(f"{' and '.join(f'--{name}' for name in given)} are both --{new} now; name one")
    for old, new in renamed.items():
        if values[old].present:
            logging.warning("--%s is now --%s", old, new)
    # `records --verify` and `--describe` write nothing.
    reads = command == "records" and (values.verify or values.describe)
    if command in PLACES and len(arguments) == 2 and not reads:
        argument, new = PLACES[command]
        if not values[new].present:
            *arguments, place = arguments
            values[new].value = place
            logging.warning("the argument after %s is now %s", argument, shell_quoted([f"--{new}={place}"]))
    return arguments
