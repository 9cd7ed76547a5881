"""The command that resumes an interrupted run."""

import shlex
from pathlib import Path

from polynet_keras.cluster.workers import Strategy, worker_count


def command_to_resume(path: Path, strategy: Strategy | None, *flags: str) -> str:
    """Returns the command that resumes a run: the folder has its recipe.

    Args:
        path: the run folder.
        strategy: strategy of the run; how several workers were started is not known.
        flags: further flags that the command needs.
    """
    own = shlex.join([f"--run_dir={path}", *flags])
    return f"the same command with {own}" if worker_count(strategy) > 1 else f"`polynet train {own}`"
