"""A worker that ends between the meeting and TensorFlow's connecting, and a guard that is not needed."""

import signal
import time

import pytest

from polynet_keras.cluster.cluster import Cluster
from polynet_keras.cluster.connecting import limited_connecting
from tests.processes import run_workers

LEAVES_AFTER_THE_MEETING = """
import os
from polynet_keras.cluster import strategies
from polynet_keras.cluster.cluster import Cluster

strategies.CONNECT_SECONDS = 10
cluster = Cluster.from_environment()
if cluster.index == 1:
    strategies._multi_worker_strategy = lambda *arguments: os._exit(9)
strategies.open_strategy("auto", cluster)
"""


@pytest.mark.slow
def test_who_waits_for_a_worker_that_is_gone_ends():
    chief, gone = run_workers(2, LEAVES_AFTER_THE_MEETING, timeout=120)
    assert gone.code == 9
    assert chief.code == -signal.SIGKILL
    (line,) = [line for line in chief.output.splitlines() if "did not connect" in line]
    assert line.startswith("worker 0 (127.0.0.1:")
    assert "the workers met, but did not connect within 25 s: worker 1 (127.0.0.1:" in line
    assert line.endswith(") cannot be reached")


def test_who_connects_in_time_is_left_alone(capfd):
    with limited_connecting(Cluster(("localhost:1", "localhost:2")), 1.0):
        time.sleep(0.1)
    time.sleep(1.5)
    assert "did not connect" not in capfd.readouterr().err
