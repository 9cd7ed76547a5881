"""Checkpoints of several replicas, of several workers, and of processes that are killed."""

import json
import os
import signal
import time
from pathlib import Path

import pytest

from polynet_keras.checkpoints.callback import Checkpoints
from polynet_keras.checkpoints.files import CheckpointFiles
from tests.children import Child
from tests.processes import free_addresses, tf_config

SCRIPT = Path(__file__).parent / "resumed.py"
SECONDS = 120


@pytest.fixture
def start():
    """Starts `resumed.py`, and ends what still runs after the test."""
    processes = []

    def start(kind, folder, **env):
        process = Child(SCRIPT, kind, str(folder), env=env)
        processes.append(process)
        return process

    yield start
    for process in processes:
        process.end()


def found_by(process):
    out, err = process.communicate(timeout=SECONDS)
    assert process.returncode == 0, err[-3000:]
    return json.loads(out.splitlines()[-1])


def workers_on_loopback(start, count, folder):
    addresses = free_addresses(count)
    configs = [tf_config(addresses, index) for index in range(count)]
    return [found_by(process) for process in [start("multi_worker", folder, TF_CONFIG=config) for config in configs]]


@pytest.mark.slow
def test_keras_model_on_several_replicas(start, tmp_path):
    """Whose metrics each replica adds up for itself."""
    assert found_by(start("mirrored", tmp_path)) == {"replicas": 2, "same": True}


@pytest.mark.slow
def test_several_workers(start, tmp_path):
    """One of them is told to stop, all stop at the same step, and go on from the same checkpoint, or none does."""
    chief, other = workers_on_loopback(start, 2, tmp_path)
    for found in (chief, other):
        assert found["stopped"] == "stopped at epoch 2, step 3, which is saved"
        assert found["position"] == 8
        assert found["same"]
        assert found["folders"] == ["stopped", "undisturbed"]  # only the chief makes folders
    assert "fingerprint '', but this one has 'other'" in chief["other recipe"]
    assert "the chief cannot resume from the checkpoints in" in other["other recipe"]
    assert "1 of 2 workers cannot continue;" in chief["not shared"]
    assert "elsewhere/checkpoint-" in other["not shared"]
    assert "The folder must be on storage that all workers share" in other["not shared"]


def lines(process, count):
    for _ in range(count):
        assert process.stdout.readline() == "step\n", process.stderr.read()[-3000:]


@pytest.mark.slow
def test_a_process_that_is_told_to_stop_and_one_that_is_killed_while_it_saves(start, tmp_path):
    process = start("none", tmp_path)
    lines(process, 3)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=SECONDS)
    # Nobody caught it: no traceback, and the code that asks to be started again.
    assert process.returncode == 75
    assert "stopped at epoch 1, step " in errors
    assert "Traceback" not in errors
    stopped_at = Checkpoints(tmp_path, every_steps=1).position.global_step
    assert stopped_at >= 3

    process = start("none", tmp_path)
    lines(process, stopped_at + 2)
    deadline = time.monotonic() + SECONDS
    while not any(".tempstate" in name for name in os.listdir(tmp_path)):
        assert time.monotonic() < deadline
    process.kill()
    _, errors = process.communicate(timeout=SECONDS)
    assert process.returncode == -signal.SIGKILL
    assert "resuming from " in errors
    files = CheckpointFiles(tmp_path, keep=3)
    numbers = files.numbers()
    whole = {f"checkpoint-{n}{ending}" for n in numbers for ending in (".index", ".data-00000-of-00001")}
    assert set(os.listdir(tmp_path)) - whole  # what it was about to write
    position = Checkpoints(tmp_path, every_steps=1).position.global_step
    assert position > stopped_at
    files.prepare()
    assert set(os.listdir(tmp_path)) == whole
    assert files.newest().number == numbers[-1]
