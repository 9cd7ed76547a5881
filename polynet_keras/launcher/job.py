"""A job: the processes that train together, and the settings of their launcher."""

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from polynet_keras.basics.names import number_of
from polynet_keras.cluster.cluster import Cluster
from polynet_keras.cluster.gpus import GPUS_VARIABLE


@dataclass(frozen=True)
class Job:
    """Processes that train together.

    Attributes:
        command: the program and the arguments of each worker.
        workers: the number of workers on this machine.
        gpus: the GPUs, as CUDA_VISIBLE_DEVICES names them; each worker sees an equal share of them. Without any, it
            sees what this process sees.
        cluster: the workers of all machines, of which `index` is this machine's first one, if other launchers start the
            others; by default the workers of this machine are all.
        max_restarts: how often all of them are restarted, in total.
        grace_seconds: the time for a worker to exit by itself, after another one failed or after a signal to stop.
        mistakes: exit codes after which there is no restart.
        pin: whether each worker gets its own share of the cores.
        log_dir: a folder with a file for each worker and attempt, to which its output is appended.
        event_log: a file to which the events are appended, as JSON lines.

    Raises:
        ValueError: a value out of range.
    """

    command: Sequence[str]
    workers: int
    gpus: Sequence[str] = ()
    cluster: Cluster = field(default_factory=Cluster)
    max_restarts: int = 3
    grace_seconds: float = 30.0
    mistakes: frozenset[int] = frozenset({2})
    pin: bool = False
    log_dir: Path | None = None
    event_log: Path | None = None

    def __post_init__(self):
        if self.workers < 1:
            raise ValueError(f"workers={self.workers} must be at least 1")
        count = len(self.gpus)
        if count % self.workers:
            *others, most = [str(workers) for workers in range(1, count + 1) if count % workers == 0]
            possible = f"{', '.join(others)} or {most}" if others else most
            raise ValueError(
                f"workers={self.workers} cannot share {number_of(count, 'GPU')} equally; choose {possible}, or other "
                f"GPUs in {GPUS_VARIABLE} (-1: none)"
            )
        if self.max_restarts < 0:
            raise ValueError(f"max_restarts={self.max_restarts} must be at least 0")
        if not 0 < self.grace_seconds < math.inf:
            raise ValueError(f"grace_seconds={self.grace_seconds} must be a finite number > 0")
        if self.pin and not hasattr(os, "sched_setaffinity"):
            raise ValueError("this system cannot give workers their own cores; use pin=False (--nopin)")
        if self.pin and self.workers > len(cores()):
            raise ValueError(
                f"{self.workers} workers cannot each have a core: this process has {number_of(len(cores()), 'core')}; "
                "use pin=False (--nopin)"
            )

    @property
    def indices(self) -> range:
        """The indices of this machine's workers among all."""
        return range(self.cluster.index, self.cluster.index + self.workers)


def cores() -> list[int]:
    """The cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))
