"""The command in messages that resumes a run."""

from pathlib import Path

import keras

from polynet_keras.training.runs import resuming as module
from polynet_keras.training.runs.execution import Execution
from polynet_keras.training.runs.resuming import resuming


def test_one_process_has_a_command_to_paste():
    assert resuming(Path("my runs/a"), Execution(), None) == "`polynet train '--run_dir=my runs/a'`"
    with_features = resuming(Path("runs/a"), Execution(features_dir="kept"), None)
    assert with_features == "`polynet train --run_dir=runs/a --features_dir=kept`"


def test_what_the_run_folder_does_not_tell(monkeypatch):
    same = "the same command with --run_dir=runs/a"
    for execution in (Execution("none"), Execution(deterministic=True), Execution(save_every_minutes=1)):
        assert resuming(Path("runs/a"), execution, None) == same
    with monkeypatch.context() as patch:
        patch.setattr(module, "worker_count", lambda strategy: 2)
        assert resuming(Path("runs/a"), Execution(), None) == same
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    assert resuming(Path("runs/a"), Execution(), None) == same
