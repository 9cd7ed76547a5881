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
        replicas: into how many equal parts, one for each of its devices, a worker splits its own.
        group: how many examples that follow each other stay together: 2 where pairs are mixed. A batch's part is a
            multiple of it, but at the end of an epoch.
    """

    count: int
    global_batch_size: int
    seed: int
    workers: int = 1
    worker: int = 0
    replicas: int = 1
    group: int = 1

    def __post_init__(self):
        if self.count < 1 or self.global_batch_size < 1:
            raise ValueError(
                f"there are {self.count} examples for batches of {self.global_batch_size}; both must be at least 1"
            )
        check_worker(self.workers, self.worker)
        if self.replicas < 1:
            raise ValueError(f"replicas={self.replicas} must be at least 1")
        parts = self.workers * self.replicas * self.group
        if self.global_batch_size % parts:
            pairs = " of pairs that are mixed" if self.group == 2 else ""
            raise ValueError(
                f"global_batch_size={self.global_batch_size} must be a multiple of {parts}: "
                f"equal parts{pairs} for workers={self.workers}"
                + (f" of replicas={self.replicas}" if self.replicas > 1 else "")
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
        """Examples of this worker's replicas in each batch of an epoch: int64 array (steps, replicas)."""
        bounds = np.array([[self._bounds(step, r) for r in range(self.replicas)] for step in range(self.steps)])
        return bounds[..., 1] - bounds[..., 0]

    def share(self, epoch: int, first_step: int = 0) -> np.ndarray:
        """This worker's examples from a step of an epoch to the epoch's end, in order: int64 array."""
        order = self.order(epoch)
        return np.concatenate(
            [
                order[self._bounds(step, 0)[0] : self._bounds(step, self.replicas - 1)[1]]
                for step in range(first_step, self.steps)
            ]
        )

    def _bounds(self, step: int, replica: int) -> tuple[int, int]:
        start = step * self.global_batch_size
        stop = min(start + self.global_batch_size, self.count)
        groups = -(-(stop - start) // self.group)
        part, parts = self.worker * self.replicas + replica, self.workers * self.replicas
        first, last = (min(start + groups * p // parts * self.group, stop) for p in (part, part + 1))
        return first, last


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
    if not 0 <= worker < workers:
        raise ValueError(f"worker={worker} of workers={workers}: expected one of 0 to workers - 1")
