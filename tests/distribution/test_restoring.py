"""Checkpoints of several replicas, of several workers, and of processes that are killed."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from polynet_keras.distribution.checkpoint_files import CheckpointFiles
from polynet_keras.distribution.checkpoints import Checkpoints

SCRIPT = Path(__file__).parent / "resumed.py"
SECONDS = 120


@pytest.fixture
def start():
    """Starts `resumed.py`, and ends what still runs after the test."""
    processes = []

    def start(kind, folder, **environ):
        environ = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "2", "PYTHONWARNINGS": "ignore", **environ}
        command = [sys.executable, str(SCRIPT), kind, str(folder)]
        process = subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        processes.append(process)
        return process

    yield start
    for process in processes:
        process.kill()
        process.communicate()


def found_by(process):
    out, err = process.communicate(timeout=SECONDS)
    assert process.returncode == 0, err[-3000:]
    return json.loads(out.splitlines()[-1])


def workers_on_loopback(start, count, folder):
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    addresses = [f"127.0.0.1:{one.getsockname()[1]}" for one in sockets]
    for one in sockets:
        one.close()
    tasks = [{"cluster": {"worker": addresses}, "task": {"type": "worker", "index": n}} for n in range(count)]
    return [found_by(p) for p in [start("multi_worker", folder, TF_CONFIG=json.dumps(task)) for task in tasks]]


@pytest.mark.slow
def test_keras_model_on_several_replicas(start, tmp_path):
    """Whose metrics each replica adds up for itself."""
    assert found_by(start("mirrored", tmp_path)) == {"replicas": 2, "same": True}


@pytest.mark.slow
def test_several_workers(start, tmp_path):
    """One of them is told to stop, all stop at the same step, and go on from the same checkpoint, or none does."""
    chief, other = workers_on_loopback(start, 2, tmp_path)
    for found in (chief, other):
        assert found["stopped"] == "told to stop at epoch 2, step 3, which is saved"
        assert found["position"] == 8
        assert found["same"]
        assert found["folders"] == ["stopped", "undisturbed"]  # only the chief makes folders
    assert "fingerprint '', this one has 'other'" in chief["other recipe"]
    assert "the chief cannot go on from the checkpoints in" in other["other recipe"]
    assert "1 of 2 workers cannot go on;" in chief["not shared"]
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
    assert "told to stop at epoch 1, step " in errors
    assert "Traceback" not in errors
    stopped_at = Checkpoints(tmp_path, every_steps=1).position.global_step
    assert stopped_at >= 3

    process = start("none", tmp_path)
    lines(process, stopped_at + 2)
    deadline = time.monotonic() + SECONDS
    while not any(".tempstate" in name for name in os.listdir(tmp_path)):
        assert time.monotonic() < deadline
    process.kill()
    process.communicate(timeout=SECONDS)
    assert process.returncode == -signal.SIGKILL
    files = CheckpointFiles(tmp_path, keep=3)
    numbers = files.numbers()
    whole = {f"checkpoint-{n}{ending}" for n in numbers for ending in (".index", ".data-00000-of-00001")}
    assert set(os.listdir(tmp_path)) - whole  # what it was about to write
    position = Checkpoints(tmp_path, every_steps=1).position.global_step
    assert position > stopped_at
    files.prepare()
    assert set(os.listdir(tmp_path)) == whole
    assert files.newest().number == numbers[-1]
