"""How to resume a run, for messages."""

import dataclasses
import shlex
from pathlib import Path

import keras

from polynet_keras.basics.names import shell_quoted
from polynet_keras.cluster.workers import Strategy, worker_count
from polynet_keras.training.runs.execution import Execution


def resuming(path: Path, execution: Execution, strategy: Strategy | None) -> str:
    """Returns the command that resumes a run, or a description if it needs more than the run folder.

    Args:
        path: the run folder, which has the recipe.
        execution: execution of the run.
        strategy: strategy of the model.
    """
    is_plain = dataclasses.replace(execution, features_dir=None) == Execution()
    if not is_plain or worker_count(strategy) > 1 or keras.backend.backend() != "tensorflow":
        return f"the same command with {shlex.quote(f'--run_dir={path}')}"
    features = [] if execution.features_dir is None else [f"--features_dir={execution.features_dir}"]
    return f"`{shell_quoted(['polynet', 'train', f'--run_dir={path}', *features])}`"
