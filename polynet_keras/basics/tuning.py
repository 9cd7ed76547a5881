"""Datasets that tf.data does not tune while they run, so that their iterators end at once.

In TensorFlow 2.21 and before, an iterator that ends wakes the thread that tunes it before it marks it as cancelled. If
the thread looks first, which on a process's only core it does, it sees nothing and sleeps on, and the end waits for it:
up to a minute, at the end of each epoch and of each evaluation, and of several workers all wait for the one. Without
tuning there is no such thread.
"""

import os
from typing import Any

THREADS_A_CORE = 2
"""Of a pipeline: with one, a core is idle while its thread waits for another's copy, 8 % of the time on two."""


def untuned(dataset: Any, threads: int | None = None) -> Any:
    """A `tf.data.Dataset` without tuning.

    A map with `num_parallel_calls=tf.data.AUTOTUNE` then runs as many calls at a time as the dataset has threads of its
    own, or, without such, as many as there are cores, up to 16. Give `prefetch` a number: without tuning, what AUTOTUNE
    buffers has no bound.

    Args:
        dataset: any.
        threads: of its own; by default those that it has.
    """
    before = dataset.options()
    options = type(before)()  # which needs no import of TensorFlow
    options.autotune.enabled = False
    threads = threads or before.threading.private_threadpool_size
    if threads:
        options.autotune.initial_parallelism = threads
        options.threading.private_threadpool_size = threads
    return dataset.with_options(options)


def usual_threads() -> int:
    """Of a pipeline in this process: `THREADS_A_CORE` for each core that it may use."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return THREADS_A_CORE * cores
