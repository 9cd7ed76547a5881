"""Names in messages: the flag on the command line, `--epochs=-1`, the argument in Python, `epochs=-1`."""

import re

from absl import flags

FLAGS = {
    "data": "calibration",
    "images": "calibration_images",
    "implementation": "communication",
    "timeout_seconds": "communication_timeout",
}
"""The flag of each argument, in commands that have no flag with the argument's name."""
POSITIONAL = {"data": "FOLDER_OR_TABLE"}
"""The name in the usage of each argument, in a command that takes it without a flag (`polynet records`)."""


def named_by_flag(message: str, values: flags.FlagValues) -> str:
    """Returns an error's message for a command with these flags: the argument at its start gets its flag's name."""
    match = re.match(r"(\w+)=", message)
    if not match:
        return message
    flag = next((one for one in (match[1], FLAGS.get(match[1], "")) if one in values), None)
    name = f"--{getattr(values[flag], 'new_name', flag)}" if flag else POSITIONAL.get(match[1], match[1])
    return f"{name}{message[match.end() - 1 :]}"
