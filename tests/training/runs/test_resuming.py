"""The command in messages that resumes a run."""

from pathlib import Path

from polynet_keras.training.runs import resuming as module
from polynet_keras.training.runs.execution import Execution
from polynet_keras.training.runs.resuming import resuming


def test_one_process_has_a_command_to_paste():
    assert resuming(Path("my runs/a"), Execution(), None) == "`polynet train '--run_dir=my runs/a'`"
    with_features = resuming(Path("runs/a"), Execution(features_dir="kept"), None)
    assert with_features == "`polynet train --run_dir=runs/a --features_dir=kept`"


def test_what_the_run_folder_does_not_tell(monkeypatch):
    assert resuming(Path("runs/a"), Execution("none"), None) == "the same command with --run_dir=runs/a"
    monkeypatch.setattr(module, "worker_count", lambda strategy: 2)
    assert resuming(Path("runs/a"), Execution(), None) == "the same command with --run_dir=runs/a"
