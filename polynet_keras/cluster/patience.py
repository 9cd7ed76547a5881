"""A worker that waits too long for a joint operation gives up, and names the workers that did not arrive.

TensorFlow's own timeout uses a thread for each collective. The thread sleeps until the timeout is over, even if the sum
finished long ago: with 120 sums a step and 600 s, a process has 32768 threads after some 140 steps, and is killed. Here
one thread watches all waits.
"""

import contextlib
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass

import tensorflow as tf
from absl import logging

from polynet_keras.basics.exits import EXIT_RESTART
from polynet_keras.cluster import internals
from polynet_keras.cluster.cluster import Cluster
from polynet_keras.cluster.failures import leave, silent_workers
from polynet_keras.cluster.workers import Strategy

ANNOUNCE_SECONDS = 5
"""After this wait a worker announces it to the others. A worker without an announcement waits for something else."""
ASK_SECONDS = 2
"""The time for another worker's announcement of the same wait to arrive."""
STUCK_SECONDS = 60
"""The time for an operation to end after a worker has given it up."""


@dataclass(frozen=True)
class Wait:
    """One wait of this worker: its number, its start, and its limit in seconds."""

    number: int
    since: float
    limit: float


class Patience:
    """Watches a worker's waits for the other workers of one strategy, whose attribute `patience` it is.

    Args:
        cluster: the cluster; its strategy is open.
        seconds: the longest wait.
    """

    def __init__(self, cluster: Cluster, seconds: float):
        self._cluster = cluster
        self.seconds = seconds
        self._number = 0
        self._wait: Wait | None = None
        threading.Thread(target=self._watch, name="patience", daemon=True).start()

    @contextlib.contextmanager
    def waiting(self, steps: int) -> Iterator[None]:
        """Marks a wait for the others. All workers come here equally often; a nested wait is part of the outer one."""
        if self._wait is not None:
            yield
            return
        self._number += 1
        self._wait = Wait(self._number, time.monotonic(), steps * self.seconds)
        try:
            yield
        finally:
            self._wait = None

    def _watch(self) -> None:
        announced = 0
        while True:
            time.sleep(min(1.0, self.seconds / 10))
            wait = self._wait
            if wait is None:
                continue
            try:
                seconds = time.monotonic() - wait.since
                if wait.number != announced and seconds > min(ANNOUNCE_SECONDS, self.seconds / 2):
                    before, announced = announced, wait.number
                    # A worker that cannot announce its wait is reported too, and gives up as well.
                    with contextlib.suppress(tf.errors.OpError):
                        self._announce(before, wait.number)
                if seconds > wait.limit:
                    self._give_up(wait)
            except Exception as error:  # this thread must survive: it limits all waits
                logging.log_every_n_seconds(logging.WARNING, "the wait for others could not be limited: %r", 60, error)

    def _announce(self, before: int, number: int) -> None:
        internals.put_up(_key(number, self._cluster.index))
        if before:
            internals.take_down(_key(before, self._cluster.index))

    def _give_up(self, wait: Wait) -> None:
        others = [index for index in range(self._cluster.count) if index != self._cluster.index]
        missing = [
            self._cluster.name(index) for index in others if not internals.is_up(_key(wait.number, index), ASK_SECONDS)
        ]
        silence = silent_workers(self._cluster)
        if silence:
            reason = silence
        elif missing:
            reason = f"{' and '.join(missing)} did not come to a sum over the workers within {wait.limit:g} s"
        else:
            reason = (
                f"a sum over the workers failed: all have been in it for {wait.limit:g} s; one hangs in its step, or "
                "the timeout is too short"
            )
        if self._wait is not wait:
            return  # the sum has finished meanwhile
        internals.end_sums(reason)
        time.sleep(STUCK_SECONDS)
        if self._wait is wait:
            logging.error("%s; this worker is stuck, and exits", reason)
            leave(EXIT_RESTART)


def half_a_wait(strategy: Strategy | None, seconds: float) -> float:
    """Returns `seconds`, or half the limit of the other workers' wait for this one, whichever is less."""
    patience = _patience_of(strategy)
    return seconds if patience is None else min(seconds, patience.seconds / 2)


def waiting(strategy: Strategy | None, steps: int = 1) -> contextlib.AbstractContextManager[None]:
    """Marks an operation that all workers of a strategy do together.

    Args:
        strategy: no effect unless it has several workers and `open_strategy` made it.
        steps: the number of steps in the operation, each of which may take the limit.
    """
    patience = _patience_of(strategy)
    return contextlib.nullcontext() if patience is None else patience.waiting(steps)


def _patience_of(strategy: Strategy | None) -> Patience | None:
    return getattr(strategy, "patience", None)


def _key(number: int, index: int) -> str:
    return f"polynet_keras/waiting/{number}/{index}"
