"""When a worker fails, the others end at once, with a message that says which one and why."""

import contextlib
import os
import re
import sys
import threading
import time
from collections.abc import Iterator
from typing import NoReturn

import tensorflow as tf
from absl import logging

from polynet_keras.basics.exits import Restart
from polynet_keras.basics.tensorflow_errors import without_place
from polynet_keras.cluster import internals
from polynet_keras.cluster.cluster import Cluster

CHECK_SECONDS = 3
"""For a worker to answer whether it is there. A stopped process accepts connections, and answers nothing."""
LINGER_SECONDS = 2
"""For the others to ask this process the same, and to hear what it reported."""

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
"""What TensorFlow's errors say where another process is the reason: one of these, or the number of another task. What
is derived has its reason where this process does not see it."""
REPORTED = re.compile(
    r"(?:Error reported from /job:worker/\S+|Collective ops is aborted by): "
    r"(worker \d+ \(.*|a sum over the workers failed.*)"
)
"""What one of us told the others, by the service or by the one who was waited for; TensorFlow's service reports of its
own, and names no address."""


class PeerFailure(Restart):
    """Another worker failed, or did not answer in time: a `SystemExit` of code 75. The message names the worker."""

    def __init__(self, reason: str):
        super().__init__()
        self.reason = reason

    def __str__(self) -> str:
        return self.reason


@contextlib.contextmanager
def peer_failures(cluster: Cluster) -> Iterator[None]:
    """Turns TensorFlow's errors about other workers into a `PeerFailure`, and tells the others of errors here.

    What waits for a sum with a failed worker ends as soon as any of them sees the failure: an exception at once; a
    process that is gone or stopped when its connections break, or after TensorFlow's heartbeat of ten seconds; one that
    hangs after the `timeout_seconds` of `Communication`, if the strategy is of `open_strategy`.

    Args:
        cluster: whose workers train inside.

    Raises:
        PeerFailure: in place of an error that another worker is the reason of.
    """
    if not cluster.is_distributed:
        yield
        return
    try:
        yield
    except Restart:  # all workers end, and all know
        raise
    except SystemExit as error:
        if error.code not in (None, 0):
            _tell(cluster, f"{cluster.name(cluster.index)} ended with {error.code}")
        raise
    except PEER_ERRORS as error:
        if not _is_of_another(cluster, str(error)):
            _tell(cluster, _own_failure(cluster, error))
            raise
        reason = _reason(cluster, error)
        _tell(cluster, reason)
        logging.error("%s; all workers end, and can be started again", reason)
        raise PeerFailure(reason) from None
    except (Exception, KeyboardInterrupt) as error:
        _tell(cluster, _own_failure(cluster, error))
        raise


def leave(code: int = 0) -> NoReturn:
    """Ends this process of several, without TensorFlow's teardown, which may wait half a minute for who left before."""
    logging.flush()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _is_of_another(cluster: Cluster, text: str) -> bool:
    """Whether an error's text has another process for its reason."""
    text = without_place(text)
    return bool(TRACES.search(text)) or any(int(task) != cluster.index for task in TASK.findall(text))


def _reason(cluster: Cluster, error: tf.errors.OpError) -> str:
    """Who failed, and how, as one of us has told, or as this worker can see."""
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
    logging.error("no worker is gone, and none has told why; TensorFlow says: %s", error)
    return f"a sum over the workers failed, though all of them answer ({what})"


def silent_workers(cluster: Cluster) -> str | None:
    """Says which other workers are gone, or stopped, if some are."""
    others = [index for index in range(cluster.count) if index != cluster.index]
    silent = [cluster.name(index) for index in others if not internals.answers(index, CHECK_SECONDS)]
    return f"{' and '.join(silent)} {'does' if len(silent) == 1 else 'do'} not answer" if silent else None


def _own_failure(cluster: Cluster, error: BaseException) -> str:
    if isinstance(error, KeyboardInterrupt):
        return f"{cluster.name(cluster.index)} was interrupted"
    lines = without_place(str(error)).splitlines() or [""]
    return f"{cluster.name(cluster.index)} failed: {type(error).__name__}: {lines[0]}"


def _tell(cluster: Cluster, reason: str) -> None:
    """Ends what the others wait for, with this reason."""
    if not internals.is_connected():
        return
    if not cluster.is_chief and not internals.answers(0, CHECK_SECONDS):
        return  # the chief is to hear it first

    def report() -> None:
        try:
            internals.tell_all(reason)
        except (tf.errors.OpError, ValueError) as error:
            logging.debug("the other workers could not be told: %s", error)

    # TensorFlow waits without end for a chief that has stopped.
    reporter = threading.Thread(target=report, daemon=True)
    reporter.start()
    reporter.join(CHECK_SECONDS)
    time.sleep(LINGER_SECONDS)
