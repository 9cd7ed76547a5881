"""`polynet train` and `launch` on the JAX backend: who may write a run folder, and a run that goes on after a kill."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from polynet_keras.basics.holding import holding
from tests.training.runs.test_train import bright_and_dark, history
from tests.waiting import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.backends]
POLYNET = Path(sys.executable).parent / "polynet"
TRAIN = [
    "train", "--data=photos", "--recipe=digits", "--structure=1 x [ir] | 1 x [ir] | 1 x [ir]", "--width=0.1",
    "--batch_size=10", "--epochs=3", "--save_every_steps=1",
]  # fmt: skip


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """The working folder, with a few photographs."""
    bright_and_dark(tmp_path / "photos", 10)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TF_CONFIG", raising=False)
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    monkeypatch.setenv("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")  # compiles for half the time
    return tmp_path


def polynet(*arguments):
    return subprocess.run([POLYNET, *arguments], capture_output=True, text=True, check=False, timeout=240)


def test_a_run_that_is_killed_goes_on_and_two_processes_do_not_share_it(here):
    with subprocess.Popen([POLYNET, *TRAIN, "--run_dir=run"], stderr=subprocess.DEVNULL) as first:
        wait_until(lambda: any(here.glob("run/checkpoints/*.index")), "a checkpoint is written", 200)
        try:
            first.send_signal(signal.SIGSTOP)  # it would be done before the second one has begun
            second = polynet(*TRAIN, "--run_dir=run")
        finally:
            first.kill()
    assert (second.returncode, second.stdout) == (1, "")
    (line,) = second.stderr.splitlines()
    assert line.startswith(f"polynet: --run_dir='run' is being written by process {first.pid} on ")
    third = polynet("train", "--run_dir=run")
    assert third.returncode == 0, third.stderr[-3000:]
    assert "resuming from run/checkpoints/checkpoint-" in third.stderr
    assert [row["epoch"] for row in history(here / "run")] == ["0", "1", "2"]
    assert (here / "run" / "model.json").is_file()


@pytest.mark.parametrize("folder", ["held", "/proc/run"])
def test_a_run_folder_that_two_workers_cannot_have(here, folder):
    (here / "held").mkdir()
    with holding("run_dir", here / "held"):
        done = polynet("launch", "--workers=2", "--", *TRAIN, f"--run_dir={folder}")
        assert sorted(os.listdir("held")) == [".lock", ".lock-holder.json"]
    assert done.returncode == 1
    fault = f"is being written by process {os.getpid()} on " if folder == "held" else "cannot be written: "
    told = f"error: worker 0 exited with 1, and a restart would not fix that: polynet: --run_dir='{folder}' {fault}"
    assert done.stderr.splitlines()[-1].startswith(told)
    assert not (here / "runs").exists()
