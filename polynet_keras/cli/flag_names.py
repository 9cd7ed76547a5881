"""On the command line a value is named by its flag, in Python by its argument: `--epochs=-1`, and `epochs=-1`."""

import re

from absl import flags

FLAGS = {
    "data": "calibration",
    "images": "calibration_images",
    "implementation": "communication",
    "timeout_seconds": "communication_timeout",
}
"""By argument: its flag, in commands that have none of the argument's name."""
POSITIONAL = {"data": "FOLDER_OR_TABLE"}
"""By argument: what the usage calls it, in a command that takes it without a flag (`polynet records`)."""


def named_by_flag(message: str, values: flags.FlagValues) -> str:
    """What an error says, of a command that has these flags: an argument that it begins with is named by its flag."""
    match = re.match(r"(\w+)=", message)
    if not match:
        return message
    flag = next((one for one in (match[1], FLAGS.get(match[1], "")) if one in values), None)
    name = f"--{getattr(values[flag], 'new_name', flag)}" if flag else POSITIONAL.get(match[1], match[1])
    return f"{name}{message[match.end() - 1 :]}"
