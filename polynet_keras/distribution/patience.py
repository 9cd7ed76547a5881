"""A worker that waits too long for what all workers do together gives up, and says who did not come.

TensorFlow's own timeout of a collective costs a thread for each, which sleeps until the timeout is over though the
sum came long ago: with 120 sums a step and 600 s a process has 32768 threads, and is ended, after some 140 steps. Here
one thread watches them all.
"""

import contextlib
import threading
import time
from collections.abc import Iterator

import tensorflow as tf
from absl import logging

from polynet_keras.distribution.cluster import Cluster
from polynet_keras.distribution.failures import leave, silent_workers
from polynet_keras.distribution.interruption import EXIT_RESTART

ANNOUNCE_SECONDS = 5
"""After so long a wait the others are told of it: whoever has not told waits for something else."""
ASK_SECONDS = 2
STUCK_SECONDS = 60
"""For what was waited for to end, once it is given up."""


class Patience:
    """Watches a worker's waits.

    Args:
        cluster: of the workers, whose strategy is open.
        seconds: how long a wait may be.
    """

    def __init__(self, cluster: Cluster, seconds: float):
        self._cluster = cluster
        self._seconds = seconds
        self._number = 0
        self._wait: tuple[int, float] | None = None
        threading.Thread(target=self._watch, name="patience", daemon=True).start()

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """While the others are waited for. All workers come here equally often."""
        self._number += 1
        self._wait = self._number, time.monotonic()
        try:
            yield
        finally:
            self._wait = None

    def _watch(self) -> None:
        announced = 0
        while True:
            time.sleep(min(1.0, self._seconds / 10))
            wait = self._wait
            if wait is None:
                continue
            number, since = wait
            seconds = time.monotonic() - since
            if number != announced and seconds > min(ANNOUNCE_SECONDS, self._seconds / 2):
                self._announce(number)
                announced = number
            if seconds > self._seconds:
                self._give_up(number)
                return

    def _announce(self, number: int) -> None:
        from tensorflow.python.eager import context  # it has no public name

        with contextlib.suppress(tf.errors.OpError):  # where nobody can be told, this worker is named too
            context.context().set_config_key_value(_key(number, self._cluster.index), "")

    def _give_up(self, number: int) -> None:
        from tensorflow.python.eager import context

        others = [index for index in range(self._cluster.count) if index != self._cluster.index]
        missing = [self._cluster.name(index) for index in others if not _waits(number, index)]
        if missing:
            reason = f"{' and '.join(missing)} did not come to a sum over the workers within {self._seconds:g} s"
        else:
            reason = f"a sum over the workers failed: all wait for it, {self._seconds:g} s; is the timeout too short?"
        reason = silent_workers(self._cluster) or reason
        context.context().abort_collective_ops(tf.errors.UNAVAILABLE, reason)
        time.sleep(STUCK_SECONDS)
        wait = self._wait
        if wait is not None and wait[0] == number:
            logging.error("%s; this worker is stuck, and ends", reason)
            leave(EXIT_RESTART)


def watch(cluster: Cluster, seconds: float) -> None:
    """Limits `waiting` in this process, which has one strategy of several workers, to so many seconds."""
    global _patience
    _patience = Patience(cluster, seconds)


def waiting() -> contextlib.AbstractContextManager[None]:
    """For what all workers do together, and none can do without the others."""
    return contextlib.nullcontext() if _patience is None else _patience.waiting()


_patience: Patience | None = None


def _waits(number: int, index: int) -> bool:
    """Whether another worker has told that it waits for the same."""
    from tensorflow.python.eager import context

    try:
        context.context().get_config_key_value(_key(number, index), ASK_SECONDS * 1000)
    except tf.errors.OpError:
        return False
    return True


def _key(number: int, index: int) -> str:
    return f"polynet_keras/waiting/{number}/{index}"
