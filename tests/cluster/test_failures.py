"""What the others are told when a worker fails: real processes, and a loop of sums as training is one."""

import os
import signal

import pytest
import tensorflow as tf

from polynet_keras.basics.exits import EXIT_INTERRUPTED, EXIT_RESTART
from polynet_keras.cluster.cluster import Cluster
from polynet_keras.cluster.failures import PeerFailure, leave, peer_failures
from tests.processes import run_workers

LOOP = """
import os, signal, sys, time
import tensorflow as tf
from polynet_keras.cluster.cluster import Cluster
from polynet_keras.cluster.failures import peer_failures
from polynet_keras.cluster.patience import waiting
from polynet_keras.cluster.communication import Communication
from polynet_keras.cluster.strategies import open_strategy

fault, culprit = sys.argv[1], int(sys.argv[2])
cluster = Cluster.from_environment()
with peer_failures(cluster):
    strategy = open_strategy("auto", cluster, Communication(timeout_seconds=float(sys.argv[3])))

    @tf.function
    def summed(x):
        return strategy.run(lambda: tf.distribute.get_replica_context().all_reduce("SUM", [x * 1.0])[0])

    for step in range(30):
        if step == 3 and cluster.index == culprit:
            if fault == "exception":
                raise KeyError("a bug")
            if fault == "hangs":
                time.sleep(1000)
            os.kill(os.getpid(), getattr(signal, fault))
        with waiting(strategy):
            summed(tf.ones(10)).numpy()
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fault", "culprit", "code", "reason"),
    [
        ("exception", 1, 1, "failed: KeyError: 'a bug'"),
        ("SIGKILL", 0, -signal.SIGKILL, "does not answer"),
        ("SIGKILL", 2, -signal.SIGKILL, "does not answer"),
        ("SIGSTOP", 1, None, "does not answer"),
        ("SIGSTOP", 0, None, "does not answer"),
        ("hangs", 0, None, "did not come to a sum over the workers within 8 s"),
        ("hangs", 2, None, "did not come to a sum over the workers within 8 s"),
    ],
)
def test_the_others_end_and_say_which(fault, culprit, code, reason):
    """Three workers; one that never ends is killed once the others are done."""
    seconds = "8" if fault == "hangs" else "80"  # who hangs is found by nothing but this
    ended = run_workers(3, LOOP, fault, str(culprit), seconds, timeout=90, stops=culprit if code is None else None)
    for index, worker in enumerate(ended):
        if index == culprit:
            assert worker.code == code or (code is None and worker.code == -signal.SIGKILL)
            continue
        assert worker.code == EXIT_RESTART, worker.output
        (line,) = [line for line in worker.output.splitlines() if "all workers exit, and can be started again" in line]
        assert f"worker {culprit} (127.0.0.1:" in line
        assert reason in line
        assert "Traceback" not in worker.output


FIT = """
import sys, time
import keras
import numpy as np
import tensorflow as tf
from polynet_keras.cluster.cluster import Cluster
from polynet_keras.cluster.failures import peer_failures
from polynet_keras.engine.distributed_model import DistributedModel
from polynet_keras.cluster.communication import Communication
from polynet_keras.cluster.strategies import open_strategy

method = sys.argv[1]
cluster = Cluster.from_environment()
with peer_failures(cluster):
    strategy = open_strategy("auto", cluster, Communication(timeout_seconds=10))
    with strategy.scope():
        inputs = keras.Input((4,))
        if method == "build" and cluster.index == 1:
            time.sleep(1000)
        model = DistributedModel(inputs, keras.layers.Dense(1)(inputs))
        model.compile("sgd", "mse")

    def hang(batch, logs=None):
        if batch == 2 and cluster.index == 1:
            time.sleep(1000)

    hangs = keras.callbacks.LambdaCallback(on_train_batch_begin=hang)
    hangs.on_test_batch_begin = hangs.on_predict_batch_begin = hang
    data = tf.data.Dataset.from_tensor_slices((np.ones((32, 4)), np.ones((32, 1)))).batch(8)
    getattr(model, method)(data, callbacks=[hangs])
"""


@pytest.mark.slow
@pytest.mark.parametrize("method", ["build", "fit", "evaluate", "predict"])
def test_one_that_hangs_before_a_sum_is_named(method):
    chief, _ = run_workers(2, FIT, method, timeout=90, stops=1)
    assert chief.code == EXIT_RESTART, chief.output
    assert "worker 1 (127.0.0.1:" in chief.output
    assert "did not come to a sum over the workers within 10 s; all workers exit" in chief.output


def test_one_process_alone_has_no_peers():
    with pytest.raises(tf.errors.UnavailableError), peer_failures(Cluster()):
        raise tf.errors.UnavailableError(None, None, "Collective ops is aborted")


def test_an_error_of_the_model_stays_what_it_is():
    cluster = Cluster(("a:1", "b:2"), 0)
    with pytest.raises(tf.errors.InternalError, match="no such kernel"), peer_failures(cluster):
        raise tf.errors.InternalError(None, None, "no such kernel")
    with pytest.raises(ValueError, match="mistake"), peer_failures(cluster):
        raise ValueError("mistake")


NODE = "{{function_node __wrapped__IteratorGetNext_device_/job:worker/replica:0/task:0/device:CPU:0}} "


def test_an_error_of_this_workers_own_is_no_other_ones_fault():
    """TensorFlow puts the place of the operation, with the number of this very task, before what went wrong."""
    cluster = Cluster(("a:1", "b:2"), 0)
    with pytest.raises(tf.errors.FailedPreconditionError), peer_failures(cluster):
        raise tf.errors.FailedPreconditionError(None, None, NODE + "/data; Is a directory")
    text = "failed to connect to all addresses; Additional GRPC error information from remote target "
    with pytest.raises(PeerFailure), peer_failures(cluster):
        raise tf.errors.UnavailableError(None, None, NODE + text + "/job:worker/replica:0/task:1")
    cluster = Cluster(("a:1", "b:2"), 1)
    with pytest.raises(tf.errors.FailedPreconditionError), peer_failures(cluster):
        raise tf.errors.FailedPreconditionError(None, None, "/job:localhost/replica:0/task:0: /data; Is a directory")
    with pytest.raises(PeerFailure), peer_failures(cluster):
        raise tf.errors.CancelledError(None, None, NODE + "[_Derived_]RecvAsync is cancelled.")


@pytest.mark.parametrize(
    "text",
    [
        "Collective ops is aborted by: Error reported from /job:worker/task:1: {reason}\nThe error could be from",
        "Collective ops is aborted by: Collective ops is aborted by: {reason}\nAdditional GRPC error information",
    ],
)
@pytest.mark.parametrize(
    "reason",
    ["worker 1 (b:2) was interrupted", "a sum over the workers failed, though all of them answer (it timed out)"],
)
def test_what_another_worker_told_is_the_reason(text, reason):
    """In both forms in which it arrives."""
    error = tf.errors.UnavailableError(None, None, "Graph execution error:\n\n" + text.format(reason=reason))
    with pytest.raises(PeerFailure) as failure, peer_failures(Cluster(("a:1", "b:2"), 0)):
        raise error
    assert str(failure.value) == reason


def test_an_exit_passes():
    with pytest.raises(SystemExit) as ended, peer_failures(Cluster(("a:1", "b:2"), 0)):
        raise SystemExit(3)
    assert ended.value.code == 3
    with pytest.raises(PeerFailure, match="worker 1 is gone"), peer_failures(Cluster(("a:1", "b:2"), 0)):
        raise PeerFailure("worker 1 is gone")


def test_a_peer_failure_is_a_wish_to_be_started_again():
    assert PeerFailure("worker 1 is gone").code == EXIT_RESTART == os.EX_TEMPFAIL
    assert str(PeerFailure("worker 1 is gone")) == "worker 1 is gone"


@pytest.mark.parametrize(
    ("error", "raised", "code"),
    [
        (ValueError("UNKNOWN: Gloo AllGather failed: [pair.cc:538] Read error"), PeerFailure, EXIT_RESTART),
        (ValueError("a mistake"), ValueError, 1),
        (KeyboardInterrupt(), KeyboardInterrupt, EXIT_INTERRUPTED),
        (SystemExit(3), SystemExit, 3),
    ],
)
def test_on_jax_a_failed_process_exits_at_once(monkeypatch, error, raised, code):
    """JAX's end of a process would wait for the others, and abort."""
    exits = []
    monkeypatch.setattr("keras.backend.backend", lambda: "jax")
    monkeypatch.setattr("atexit.register", lambda *call: exits.append(call))
    with pytest.raises(raised) as ended, peer_failures(Cluster(("a:1", "b:1"))):
        raise error
    assert exits == [(leave, code)]
    if raised is PeerFailure:
        assert str(ended.value) == "another worker is gone, or hangs (Gloo AllGather failed: [pair.cc:538] Read error)"
