"""Limits of waits belong to one strategy; `test_failures.py` and `test_faults.py` have what happens at a limit."""

from types import SimpleNamespace

import pytest
import tensorflow as tf

from polynet_keras.cluster.cluster import Cluster
from polynet_keras.cluster.patience import Patience, half_a_wait, waiting

TWO = Cluster(("127.0.0.1:5000", "127.0.0.1:5001"), 0, "TF_CONFIG")


@pytest.fixture(scope="module")
def limited():
    """In place of a strategy of two workers, which a process can open once."""
    return SimpleNamespace(patience=Patience(TWO, 40.0))


def others():
    return None, tf.distribute.get_strategy(), tf.distribute.MirroredStrategy(["CPU:0"])


def test_a_wait_is_that_of_its_strategy(limited):
    for strategy in others():
        with waiting(strategy, 3):
            assert limited.patience._wait is None
    with waiting(limited, 3):
        outer = limited.patience._wait
        assert outer.limit == 120
        with waiting(limited):  # part of the other
            assert limited.patience._wait is outer
        assert limited.patience._wait is outer
    assert limited.patience._wait is None
    with waiting(limited):
        assert (limited.patience._wait.number, limited.patience._wait.limit) == (outer.number + 1, 40)


def test_half_a_wait_is_that_of_its_strategy(limited):
    assert half_a_wait(limited, 120) == 20
    assert half_a_wait(limited, 5) == 5
    for strategy in others():
        assert half_a_wait(strategy, 120) == 120
