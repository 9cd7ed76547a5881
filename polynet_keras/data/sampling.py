"""The examples in each batch, as arithmetic: the order of an epoch, and each worker's share of it.

The order is a function of (seed, epoch) alone, and a global batch is a slice of it. So training resumes exactly where
it stopped, with any number of workers.
"""

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

SAMPLINGS = ("uniform", "balanced")
"""The unit that an epoch has equally often: each example, or each class."""


@dataclass(frozen=True)
class TrainingOrder:
    """The order of training examples, epoch after epoch, and one worker's part of each batch.

    Every epoch has every example once. With labels, an epoch has the same length, and every class equally often: of
    `count` draws and k classes, count // k each, and the remainder rotates over the classes from epoch to epoch. The
    examples of a class continue from epoch to epoch, in a new order each time, so that all of them are drawn equally
    often.

    With `repeats`, an epoch has the same length, with a share of the examples: each comes `repeats` times in a row,
    also across the end of an epoch, and the next epochs have the other examples. A batch has all first repeats, then
    all second ones, and so on. So neighbours, which may be mixed, are different examples (except in a batch of one
    example), and workers share the repeats of one example.

    An order consists of draws: draw d is example d % count, and d // count distinguishes the repeats of an example in
    an epoch. Without labels and repeats, draws are examples.

    An epoch's last batch has the remaining examples, and so has a worker's part of it. The part may be empty, but all
    workers have the same number of batches.

    Attributes:
        count: number of examples.
        global_batch_size: examples per batch, of all workers together.
        seed: seed of the order.
        workers: number of workers that share the batches, in equal parts.
        worker: index of this worker, from 0.
        replicas: number of equal parts of a worker's share, one for each of its devices.
        group: number of consecutive examples that stay together: 2 if pairs are mixed. A part of a batch is a multiple
            of it, except at the end of an epoch.
        labels: int array (count,), of classes that are drawn equally often.
        repeats: how often an example comes in a row; not with labels.
    """

    count: int
    global_batch_size: int
    seed: int
    workers: int = 1
    worker: int = 0
    replicas: int = 1
    group: int = 1
    labels: np.ndarray | None = field(default=None, compare=False)
    repeats: int = 1

    def __post_init__(self):
        if self.count < 1 or self.global_batch_size < 1:
            raise ValueError(
                f"there are {self.count} examples for batches of {self.global_batch_size}; both must be at least 1"
            )
        check_worker(self.workers, self.worker)
        if self.labels is not None and self.repeats > 1:
            raise ValueError(f"repeats={self.repeats} of examples whose classes are drawn equally often; leave one out")
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
        """Number of batches in an epoch."""
        return -(-self.count // self.global_batch_size)

    def order(self, epoch: int) -> np.ndarray:
        """Returns all draws of an epoch in order: int64 array (count,)."""
        if self.repeats > 1:
            return self._repeated(epoch)
        draws = self.count if self.labels is None else self._balanced(epoch)
        return np.random.default_rng((self.seed, epoch)).permutation(draws)

    def _repeated(self, epoch: int) -> np.ndarray:
        """Returns an epoch's part of one long row; every example comes `repeats` times before any comes again."""
        places = np.arange(epoch * self.count, (epoch + 1) * self.count)
        numbers, times = places // self.repeats, places % self.repeats
        cycles, within = numbers // self.count, numbers % self.count
        draws = np.empty_like(places)
        for cycle in np.unique(cycles):
            here = cycles == cycle
            examples = np.random.default_rng((self.seed, int(cycle))).permutation(self.count)[within[here]]
            draws[here] = examples + self.count * (times[here] + self.repeats * (cycle - cycles[0]))
        batches = np.arange(self.count) // self.global_batch_size
        return draws[np.lexsort((places, times, batches))]

    @cached_property
    def _members(self) -> list[np.ndarray]:
        """The examples of each class that has any."""
        assert self.labels is not None
        by_class = np.argsort(self.labels, kind="stable")
        _, counts = np.unique(self.labels, return_counts=True)
        return np.split(by_class, np.cumsum(counts)[:-1])

    def _balanced(self, epoch: int) -> np.ndarray:
        """Returns the draws of an epoch, class by class."""
        classes = len(self._members)
        each, rest = divmod(self.count, classes)
        draws = []
        for place, members in enumerate(self._members):
            # Of the epochs before and this one: each turn of the remainder begins where the last one ended.
            first, last = (each * e + (rest * e - place + classes - 1) // classes for e in (epoch, epoch + 1))
            begun, ended = first // len(members), -(-last // len(members))
            turns = np.tile(members, (ended - begun, 1))
            # Only the first and the last one may be parts; of a whole turn the order does not matter.
            for cycle, is_part in ((begun, first % len(members)), (ended - 1, last % len(members))):
                if is_part:
                    turns[cycle - begun] = np.random.default_rng((self.seed, cycle, place + 1)).permutation(members)
            turns += self.count * np.arange(ended - begun)[:, np.newaxis]
            draws.append(turns.ravel()[first - begun * len(members) : last - begun * len(members)])
        return np.concatenate(draws)

    @cached_property
    def sizes(self) -> np.ndarray:
        """Number of examples of this worker's replicas in each batch of an epoch: int64 array (steps, replicas)."""
        bounds = np.array([[self._bounds(step, r) for r in range(self.replicas)] for step in range(self.steps)])
        return bounds[..., 1] - bounds[..., 0]

    def sizes_from(self, step: int) -> np.ndarray:
        """Returns the sizes from a global step on, cyclically: int64 array (steps · replicas,), epoch by epoch."""
        return np.roll(self.sizes, -(step % self.steps), axis=0).ravel()

    def share(self, epoch: int, first_step: int = 0) -> np.ndarray:
        """Returns this worker's draws from a step of an epoch to the epoch's end, in order: int64 array."""
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


def next_of_class(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns for each example the next one of its class, cyclically, and the number of examples in the class.

    Args:
        labels: int array (count,).

    Returns:
        int64 arrays (count,).
    """
    by_class = np.argsort(labels, kind="stable")
    _, first, counts = np.unique(labels[by_class], return_index=True, return_counts=True)
    following = np.roll(by_class, -1)
    following[first + counts - 1] = by_class[first]
    after, sizes = np.empty(len(labels), "int64"), np.empty(len(labels), "int64")
    after[by_class], sizes[by_class] = following, np.repeat(counts, counts)
    return after, sizes


def evaluation_share(count: int, batch_size: int, workers: int = 1, worker: int = 0) -> np.ndarray:
    """Returns the examples that a worker evaluates: a slice of the dataset, padded to the same number of full batches.

    Args:
        count: number of examples of the dataset.
        batch_size: batch size of one worker.
        workers: number of workers that share the dataset.
        worker: index of this worker, from 0.

    Returns:
        int64 array (batches · batch_size,) of examples, ascending, then -1 for each place of padding.
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
