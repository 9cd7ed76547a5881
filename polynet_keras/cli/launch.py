"""`polynet launch`: several workers of one command on this machine, started again when one fails."""

import shutil
import sys
from pathlib import Path

from absl import flags, logging

from polynet_keras.distribution.supervisor import Job, cores, supervise
from polynet_keras.training.recipe import Recipe
from polynet_keras.training.run_folder import default_run_folder

USAGE = "--workers N [flags] -- COMMAND ..."

MISTAKES, PROGRAM_MISTAKES = frozenset({1, 2}), frozenset({2})
"""Exit codes that say that the command was called wrongly: of `polynet`, and of any program, whose 1 may be
anything."""


def define_flags(values: flags.FlagValues) -> None:
    flags.DEFINE_integer("workers", 2, "Processes that train together.", flag_values=values)
    flags.DEFINE_integer("max_restarts", 3, "How often all are started again after a failure.", flag_values=values)
    flags.DEFINE_float(
        "grace_seconds", 30.0, "For a worker to end after another failed, or to save on SIGTERM.", flag_values=values
    )
    flags.DEFINE_bool(
        "pin", None, "Give each worker its own share of the cores. [if there are as many]", flag_values=values
    )
    flags.DEFINE_string("log_dir", None, "Folder for each worker's output.", flag_values=values)
    flags.DEFINE_string("event_log", None, "File for starts, ends and restarts, as JSON lines.", flag_values=values)


def run(values: flags.FlagValues, arguments: list[str]) -> int:
    if not arguments:
        raise ValueError("nothing to launch; as in: polynet launch --workers 2 -- train --data photos")
    command, mistakes = _command(arguments)
    job = Job(
        command=command,
        workers=values.workers,
        max_restarts=values.max_restarts,
        grace_seconds=values.grace_seconds,
        mistakes=mistakes,
        pin=values.workers <= len(cores()) if values.pin is None else values.pin,
        log_dir=Path(values.log_dir) if values.log_dir else None,
        event_log=Path(values.event_log) if values.event_log else None,
    )
    return supervise(job)


def _command(arguments: list[str]) -> tuple[list[str], frozenset[int]]:
    """What each worker runs: a command of `polynet`, or a program."""
    from polynet_keras.cli.main import COMMANDS

    name, *rest = arguments
    if name == "launch":
        raise ValueError("launch cannot launch itself")
    if name in COMMANDS:
        if name == "train" and not any(argument.lstrip("-").startswith("run_dir") for argument in rest):
            folder = default_run_folder(_data_of(rest))
            logging.info("all workers, and their restarts, use --run_dir=%s", folder)
            rest = [*rest, f"--run_dir={folder}"]
        start = "import sys; from polynet_keras.cli.main import main; sys.exit(main())"
        return [sys.executable, "-c", start, name, *rest], MISTAKES
    program = shutil.which(name)
    if program is None:
        raise ValueError(f"{name!r} is neither a command of polynet nor a program that can be found")
    return [program, *rest], PROGRAM_MISTAKES


def _data_of(arguments: list[str]) -> str:
    """What `--data` says, for the folder's name."""
    for argument, following in zip(arguments, [*arguments[1:], ""], strict=True):
        flag, equals, value = argument.lstrip("-").partition("=")
        if argument.startswith("-") and flag == "data":
            return value if equals else following
    return Recipe().data
