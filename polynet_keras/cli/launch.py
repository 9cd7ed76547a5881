"""`polynet launch`: starts several workers of one command on this machine, and restarts them when one fails.

On a machine with GPUs, there is one worker for each: a step is traced once for each replica of a process, so that one
process with all GPUs would start late.
"""

import contextlib
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from absl import flags, logging

from polynet_keras.basics.exits import EXIT_RESTART
from polynet_keras.basics.holding import make_folder
from polynet_keras.basics.names import number_of
from polynet_keras.cli import train
from polynet_keras.cli.execution_flags import execution_of
from polynet_keras.cli.flag_names import named_by_flag
from polynet_keras.cli.headings import Heading
from polynet_keras.cli.parsing import parsed
from polynet_keras.cli.renamed import define_old_names, settle_old_names
from polynet_keras.cluster.cluster import Cluster
from polynet_keras.cluster.gpus import visible_gpus
from polynet_keras.launcher.job import Job, cores
from polynet_keras.launcher.supervisor import supervise

if TYPE_CHECKING:
    from polynet_keras.training.recipes.recipe import Recipe

USAGE = "[--workers N] [flags] -- train [flags of train] | PROGRAM ..."
EXAMPLES = ("polynet launch --workers 2 -- train --data photos --run_dir runs/photos",)

WITHOUT_GPUS = 2
"""Workers on a machine without GPUs, if nobody says how many."""
MISTAKES, PROGRAM_MISTAKES = frozenset({1, 2}), frozenset({2})
"""Exit codes for a wrong call of the command: of `polynet train`, and of any program. A Python program exits with 1
after any exception."""


def define_flags(values: flags.FlagValues) -> None:
    workers = Heading(values, "Workers")
    workers.integer("workers", None, "Processes that train together on this machine. [one per GPU; 2 without GPUs]")
    workers.switch("pin", None, "Give each worker its own share of the cores. [if there are as many]")
    failures = Heading(values, "Failures")
    failures.integer("max_restarts", 3, "Largest number of restarts of the job.")
    grace = "Seconds for a worker to exit after another one failed, or to save on SIGTERM."
    failures.number("grace_seconds", 30.0, grace)
    output = Heading(values, "Output")
    output.string("log_dir", None, "Folder for the output of each worker.")
    output.string("event_log", None, "File for starts, ends and restarts, as JSON lines.")


def run(values: flags.FlagValues, arguments: list[str]) -> int:
    if not arguments:
        raise ValueError("nothing to launch; as in: polynet launch --workers 2 -- train --data photos")
    cluster, gpus = Cluster.from_environment(), visible_gpus()
    if cluster.is_distributed and (not gpus or len(cluster.on_this_machine) > 1):
        raise ValueError(
            f"{cluster.source} says that this is already one of {cluster.count} workers; start the command itself "
            "here, without launch, which works on several machines only with GPUs and as one process on each"
        )
    workers = (len(gpus) or WITHOUT_GPUS) if values.workers is None else values.workers

    from polynet_keras.pretrained.model_source import RUNS

    runs_are_new = not Path(RUNS).exists()
    command, mistakes, run_dir = _command(arguments, cluster)
    made = [] if run_dir is None else [run_dir, run_dir.parent] if runs_are_new else [run_dir]
    with _left_if_used(made):
        job = Job(
            command=command,
            workers=workers,
            gpus=gpus,
            cluster=cluster.divided(workers) if cluster.is_distributed else Cluster(),
            max_restarts=values.max_restarts,
            grace_seconds=values.grace_seconds,
            mistakes=mistakes,
            pin=_can_pin(workers) if values.pin is None else values.pin,
            log_dir=Path(values.log_dir) if values.log_dir else None,
            event_log=Path(values.event_log) if values.event_log else None,
        )
        if gpus:
            logging.info("%s with %s each", number_of(workers, "worker"), number_of(len(gpus) // workers, "GPU"))
        if job.log_dir is not None:
            make_folder("log_dir", job.log_dir)
        if run_dir is not None:
            logging.info("all workers, and their restarts, use --run_dir=%s", run_dir)
        code = supervise(job)
    if code == EXIT_RESTART and run_dir is not None:
        logging.info("to resume the run, use the same command and --run_dir=%s", run_dir)
    return code


def _can_pin(workers: int) -> bool:
    return hasattr(os, "sched_setaffinity") and workers <= len(cores())


@contextlib.contextmanager
def _left_if_used(made: list[Path]) -> Iterator[None]:
    """Removes the folders that were made here if they are empty."""
    try:
        yield
    finally:
        for folder in made:
            with contextlib.suppress(OSError):
                folder.rmdir()


def _command(arguments: list[str], cluster: Cluster) -> tuple[list[str], frozenset[int], Path | None]:
    """Returns the command of each worker, its exit codes for mistakes, and the run folder, if it was chosen here."""
    from polynet_keras.cli.main import COMMANDS
    from polynet_keras.training.runs.folder import NO_COMMON_FOLDER, new_run_folder

    name, *rest = arguments
    if name == "train":
        settings, recipe = _flags_of_train(rest)
        if cluster.is_distributed and not settings.run_dir and not settings.dry_run:
            raise ValueError(NO_COMMON_FOLDER)
        run_dir = None if settings.run_dir or settings.dry_run else new_run_folder(recipe.data)
        if run_dir is not None:
            rest = [f"--run_dir={run_dir}", *rest]
        start = "import sys; from polynet_keras.cli.main import main; sys.exit(main())"
        # -P: as for `polynet` itself, do not import modules from the current folder.
        return [sys.executable, "-P", "-c", start, name, *rest], MISTAKES, run_dir
    if name in COMMANDS:
        raise ValueError(f"`{name}` works in one process; launch starts train, or a program that reads TF_CONFIG")
    program = shutil.which(name)
    if program is None:
        raise ValueError(f"{name!r} is neither `train` nor a program that can be found")
    return [program, *rest], PROGRAM_MISTAKES, None


def _flags_of_train(arguments: list[str]) -> tuple[flags.FlagValues, "Recipe"]:
    """Reads the flags as each worker will, so that mistakes are reported before anything starts."""
    from polynet_keras.training.runs.checking import check_dry_run, check_run

    values = flags.FlagValues()
    train.define_flags(values)
    define_old_names("train", values)
    positional = settle_old_names("train", values, parsed("train", values, arguments))
    if positional:
        raise ValueError(f"unexpected argument {positional[0]!r} of train; name the data with --data")
    try:
        execution = execution_of(values)
        recipe = train.recipe_of_run(values, announce=False)  # the chief does
        if values.find_learning_rate:
            raise ValueError("--find_learning_rate runs on one worker: use `polynet train`, without `launch`")
        if values.dry_run:
            check_dry_run(recipe)
        check_run(recipe, None if values.dry_run else values.run_dir, execution.attempt, execution.features_dir)
    except ValueError as error:
        raise ValueError(named_by_flag(str(error), values)) from None
    return values, recipe
