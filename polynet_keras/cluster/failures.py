"""When a worker fails, the others exit at once, with a message that names the worker and the reason."""

import atexit
import contextlib
import os
import re
import sys
import threading
import time
from collections.abc import Iterator
from typing import NoReturn

import keras
import tensorflow as tf
from absl import logging

from polynet_keras.basics.exits import EXIT_INTERRUPTED, Restart
from polynet_keras.basics.tensorflow_errors import without_place
from polynet_keras.cluster import internals
from polynet_keras.cluster.cluster import Cluster

CHECK_SECONDS = 3
"""The time for a worker to answer whether it is alive. A stopped process accepts connections but does not answer."""
LINGER_SECONDS = 2
"""The time for the others to ask this process the same, and to receive its report."""

PEER_ERRORS = (
    tf.errors.UnavailableError,
    tf.errors.DeadlineExceededError,
    tf.errors.AbortedError,
    tf.errors.CancelledError,
    tf.errors.FailedPreconditionError,
    tf.errors.InternalError,
)
TRACES = re.compile(r"[Cc]ollective|RecvBuf|coordination service|tasks have crashed|^\s*\[_Derived_\]")
TASK = re.compile(r"/job:worker/(?:replica:\d+/)?task:(\d+)")
"""If another process caused an error, TensorFlow's message has one of these, or the number of another task. The
cause of a derived error is not visible to this process."""
REPORTED = re.compile(
    r"(?:Error reported from /job:worker/\S+|Collective ops is aborted by): "
    r"(worker \d+ \(.*|a sum over the workers failed.*)"
)
"""A report that a worker sent to the others, by the service or by the worker that was waited for. TensorFlow's service
also sends its own reports, without an address."""

LOST_ON_JAX = re.compile(r"Gloo \w+ failed: .*")
"""What JAX says on processors if the connection to another process breaks."""


class PeerFailure(Restart):
    """Another worker failed, or did not answer in time: a `SystemExit` with code 75. The message names the worker."""

    def __init__(self, reason: str):
        super().__init__()
        self.reason = reason

    def __str__(self) -> str:
        return self.reason


@contextlib.contextmanager
def peer_failures(cluster: Cluster) -> Iterator[None]:
    """Turns TensorFlow's errors about other workers into a `PeerFailure`, and reports errors here to the others.

    All waits for a sum with a failed worker end as soon as one worker sees the failure. An exception is seen at once. A
    process that is gone or stopped is seen when its connections break, or after TensorFlow's heartbeat of ten seconds.
    A worker that hangs is seen after the `timeout_seconds` of `Communication`, if `open_strategy` made the strategy.

    Args:
        cluster: the cluster whose workers train inside the block.

    Raises:
        PeerFailure: in place of an error that another worker caused.

    Examples:
        >>> with peer_failures(Cluster()):  # a process alone
        ...     print("model.fit comes here")
        model.fit comes here
    """
    if not cluster.is_distributed:
        yield
        return
    if keras.backend.backend() == "jax":
        with _failures_on_jax():
            yield
        return
    try:
        yield
    except Restart:  # all workers exit, and know why
        raise
    except SystemExit as error:
        if error.code not in (None, 0):
            _tell(cluster, f"{cluster.name(cluster.index)} exited with {error.code}")
        raise
    except PEER_ERRORS as error:
        if not _is_of_another(cluster, str(error)):
            _tell(cluster, _own_failure(cluster, error))
            raise
        reason = _reason(cluster, error)
        _tell(cluster, reason)
        logging.error("%s; all workers exit, and can be started again", reason)
        raise PeerFailure(reason) from None
    except (Exception, KeyboardInterrupt) as error:
        _tell(cluster, _own_failure(cluster, error))
        raise


@contextlib.contextmanager
def _failures_on_jax() -> Iterator[None]:
    """Turns JAX's errors about other workers into a `PeerFailure`. After an error the process will exit at once.

    Otherwise JAX waits for the other workers at the end of the process, and then aborts it and them, whatever its exit
    code would be. They notice the end of this process: their connections to it break.
    """
    try:
        try:
            yield
        except (ValueError, RuntimeError) as error:  # JAX raises either
            lost = LOST_ON_JAX.search(str(error))
            if not lost:
                raise
            reason = f"another worker is gone, or hangs ({lost[0]})"
            logging.error("%s; all workers exit, and can be started again", reason)
            raise PeerFailure(reason) from None
    except BaseException as error:
        code = error.code if isinstance(error, SystemExit) else 1
        if isinstance(error, KeyboardInterrupt):
            code = EXIT_INTERRUPTED
        atexit.register(leave, code if isinstance(code, int) else 1)
        raise


def leave(code: int = 0) -> NoReturn:
    """Exits from one process of several without TensorFlow's teardown, which may wait half a minute for absent ones.

    JAX's may wait as well, and then abort."""
    logging.flush()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _is_of_another(cluster: Cluster, text: str) -> bool:
    """Whether an error's text says that another process is the cause."""
    text = without_place(text)
    return bool(TRACES.search(text)) or any(int(task) != cluster.index for task in TASK.findall(text))


def _reason(cluster: Cluster, error: tf.errors.OpError) -> str:
    """Returns the failed worker and its failure, as a worker has reported it, or as this worker can see it."""
    logging.debug("TensorFlow's error: %s", error)
    reported = REPORTED.search(str(error))
    if reported:
        return reported[1].strip()
    silence = silent_workers(cluster)
    if silence:
        return silence
    lines = [line for line in str(error).splitlines() if TRACES.search(line) or TASK.search(line)]
    lines = [line for line in lines if "Detected at node" not in line]
    what = without_place(lines[0]) if lines else type(error).__name__
    logging.error("all workers are alive, and none has reported a failure; TensorFlow says: %s", error)
    return f"a sum over the workers failed, though all of them answer ({what})"


def silent_workers(cluster: Cluster) -> str | None:
    """Returns a message that names the other workers that are gone or stopped, or None."""
    others = [index for index in range(cluster.count) if index != cluster.index]
    silent = [cluster.name(index) for index in others if not internals.answers(index, CHECK_SECONDS)]
    return f"{' and '.join(silent)} {'does' if len(silent) == 1 else 'do'} not answer" if silent else None


def _own_failure(cluster: Cluster, error: BaseException) -> str:
    if isinstance(error, KeyboardInterrupt):
        return f"{cluster.name(cluster.index)} was interrupted"
    lines = without_place(str(error)).splitlines() or [""]
    return f"{cluster.name(cluster.index)} failed: {type(error).__name__}: {lines[0]}"


def _tell(cluster: Cluster, reason: str) -> None:
    """Ends the waits of the other workers, with this reason."""
    if not internals.is_connected():
        return
    if not cluster.is_chief and not internals.answers(0, CHECK_SECONDS):
        return  # without the chief the report reaches nobody

    def report() -> None:
        try:
            internals.tell_all(reason)
        except (tf.errors.OpError, ValueError) as error:
            logging.debug("the report did not reach the other workers: %s", error)

    # TensorFlow waits for ever for a stopped chief.
    reporter = threading.Thread(target=report, daemon=True)
    reporter.start()
    reporter.join(CHECK_SECONDS)
    time.sleep(LINGER_SECONDS)
