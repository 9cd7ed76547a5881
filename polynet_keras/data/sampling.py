"""Which examples make which batch, as arithmetic: the order of an epoch, and each worker's share of it.

The order is a function of (seed, epoch) alone, and a global batch is a slice of it, so that training goes on exactly
where it stopped, with as many workers as there are then.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np


@dataclass(frozen=True)
class TrainingOrder:
    """The order of training examples, epoch after epoch, and one worker's part of each batch.

    Every epoch holds every example once. Its last batch holds what is left, and so has a worker's part of it: perhaps
    nothing, but all workers have as many batches.

    Attributes:
        count: number of examples.
        global_batch_size: examples of a batch, of all workers together.
        seed: of the order.
        workers: how many share the batches, in equal parts.
        worker: which of them this is, from 0.
        group: how many examples that follow each other stay together: 2 where pairs are mixed. A batch's part is a
            multiple of it, but at the end of an epoch.
    """

    count: int
    global_batch_size: int
    seed: int
    workers: int = 1
    worker: int = 0
    group: int = 1

    def __post_init__(self):
        if self.count < 1 or self.global_batch_size < 1:
            raise ValueError(
                f"there are {self.count} examples for batches of {self.global_batch_size}; both must be at least 1"
            )
        check_worker(self.workers, self.worker)
        parts = self.workers * self.group
        if self.global_batch_size % parts:
            pairs = " of pairs that are mixed" if self.group == 2 else ""
            raise ValueError(
                f"global_batch_size={self.global_batch_size} must be a multiple of {parts}: "
                f"equal parts{pairs} for workers={self.workers}"
            )

    @property
    def steps(self) -> int:
        """Batches of an epoch."""
        return -(-self.count // self.global_batch_size)

    def order(self, epoch: int) -> np.ndarray:
        """All examples of an epoch in order: int64 array (count,)."""
        return np.random.default_rng((self.seed, epoch)).permutation(self.count)

    @cached_property
    def sizes(self) -> np.ndarray:
        """Examples of this worker in each batch of an epoch: int64 array (steps,)."""
        bounds = np.array([self._bounds(step) for step in range(self.steps)])
        return bounds[:, 1] - bounds[:, 0]

    def share(self, epoch: int, first_step: int = 0) -> np.ndarray:
        """This worker's examples from a step of an epoch to the epoch's end, in order: int64 array."""
        order = self.order(epoch)
        return np.concatenate([order[slice(*self._bounds(step))] for step in range(first_step, self.steps)])

    def _bounds(self, step: int) -> tuple[int, int]:
        start = step * self.global_batch_size
        stop = min(start + self.global_batch_size, self.count)
        groups = -(-(stop - start) // self.group)
        first, last = (groups * worker // self.workers * self.group for worker in (self.worker, self.worker + 1))
        return start + first, min(start + last, stop)


def evaluation_share(count: int, batch_size: int, workers: int = 1, worker: int = 0) -> np.ndarray:
    """The examples that a worker evaluates: a run of the dataset, filled up to full batches, as many as others have.

    Args:
        count: number of examples of the dataset.
        batch_size: of one worker.
        workers: how many share the dataset.
        worker: which of them this is, from 0.

    Returns:
        int64 array (batches · batch_size,) of examples, ascending, then -1 for each place that is filled up.
    """
    check_worker(workers, worker)
    if batch_size < 1:
        raise ValueError(f"batch_size={batch_size} must be at least 1")
    first, last = (count * w // workers for w in (worker, worker + 1))
    longest = -(-count // workers)
    share = np.full(-(-longest // batch_size) * batch_size, -1)
    share[: last - first] = np.arange(first, last)
    return share


def check_worker(workers: int, worker: int) -> None:
    if workers < 1 or not 0 <= worker < workers:
        raise ValueError(f"worker={worker} of workers={workers}: expected one of 0 to workers - 1")
