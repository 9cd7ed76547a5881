"""Runs on several devices of JAX and in several processes, compared with those on one device."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

from tests.training.runs.test_on_jax import found
from tests.training.runs.test_train import bright_and_dark, history

ROOT = Path(__file__).parents[3]
PROGRAM = str(Path(__file__).with_name("on_jax_devices.py"))


def run(*command, devices=1):
    environment = {**os.environ, "KERAS_BACKEND": "jax", "TF_CPP_MIN_LOG_LEVEL": "2", "PYTHONPATH": str(ROOT)}
    environment["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "1"  # compiles for half the time
    environment["XLA_FLAGS"] = f"--xla_force_host_platform_device_count={devices}"
    return subprocess.run(
        [sys.executable, *command], env=environment, capture_output=True, text=True, timeout=850, check=False
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The runs of the program `devices`: on 1, 2 and 4 devices, and `killed`."""
    path = tmp_path_factory.mktemp("on_jax_devices")
    bright_and_dark(path / "data", 15)
    (path / "data" / "dark" / "0.jpg").unlink()  # an odd number of images to train on
    killed = run(PROGRAM, "devices", path, devices=4)
    assert killed.returncode == -signal.SIGKILL, killed.stderr[-3000:]
    return path


def weights(folder):
    model = keras.saving.load_model(folder / "model.keras")
    return [keras.ops.convert_to_numpy(variable) for variable in (*model.weights, *model.optimizer.variables)]


def assert_same_run(folder, name, within):
    """Weights, optimizer and history of a run are those of one device."""
    for ours, theirs in zip(weights(folder / name), weights(folder / "1"), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=within)
    for ours, theirs in zip(history(folder / name), history(folder / "1"), strict=True):
        assert ours.keys() == theirs.keys()
        for key in ours:
            exact = "accuracy" in key or "epoch" in key
            np.testing.assert_allclose(float(ours[key]), float(theirs[key]), rtol=0, atol=1e-9 if exact else 1e-5)
    assert json.loads((folder / f"{name}.json").read_text()) == json.loads((folder / "1.json").read_text())


@pytest.mark.slow
@pytest.mark.backends
@pytest.mark.parametrize("devices", ["2", "4"])
def test_devices_train_and_evaluate_as_one(folder, devices):
    assert_same_run(folder, devices, within=1e-6)
    held_out, *_, trained = json.loads((folder / "1.json").read_text())
    assert (held_out % 4, trained % 8 % 2) == (2, 1)  # batches that have no equal parts


@pytest.mark.slow
@pytest.mark.backends
def test_a_killed_run_on_devices_goes_on_bit_for_bit(folder):
    outcome = found(run(PROGRAM, "end", folder, devices=4))
    for ours, theirs in zip(weights(folder / "killed"), weights(folder / "4"), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert history(folder / "killed") == history(folder / "4")
    assert outcome["used"] == [4, 4, 4, None]
    assert "got no batch" in outcome["empty"]
    assert outcome["apart"] < 1e-6
    losses = [float(history(folder / f"taught-{count}")[0]["loss"]) for count in (1, 4)]
    np.testing.assert_allclose(*losses, rtol=0, atol=1e-5)
    assert "batch_size=6 must be a multiple of 4" in outcome["uneven"]


@pytest.mark.slow
@pytest.mark.backends
def test_workers_train_as_one_after_one_was_killed_and_one_got_sigterm(folder):
    log = folder / "events"
    launch = [
        "-c", "import sys; from polynet_keras.cli.main import main; sys.exit(main())", "launch", "--workers=2",
        "--grace_seconds=60", f"--event_log={log}", "--", sys.executable, PROGRAM, "worker", str(folder),
    ]  # fmt: skip
    done = run(*launch)
    assert done.returncode == 0, done.stderr[-3000:]
    events = [json.loads(line) for line in log.read_text().splitlines()]
    ends = [(event["attempt"], event["worker"], event["code"]) for event in events if event["event"] == "end"]
    assert ends[0] == (0, 1, -signal.SIGKILL)
    assert ends[1] == (0, 0, 75), done.stderr[-3000:]
    assert sorted(ends[2:]) == [(1, 0, 75), (1, 1, 75), (2, 0, 0), (2, 1, 0)], done.stderr[-3000:]
    assert_same_run(folder, "workers", within=1e-6)
