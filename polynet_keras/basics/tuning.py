"""Datasets that tf.data does not tune while they run, so that their iterators end at once.

In TensorFlow 2.21 and before, an iterator that ends wakes its tuning thread before it sets the mark of cancellation. If
the thread looks first, as it does if the process has one core, it sees no mark and sleeps again. The end of each epoch
and of each evaluation then waits for the thread, up to a minute, and all workers wait for the slow one. Without tuning
there is no such thread.
"""

import os
from typing import Any

THREADS_A_CORE = 2
"""Threads of a pipeline for each core. With one, a core idles while its thread waits for another thread's copy: 8 % of
the time on two cores."""


def untuned(dataset: Any, threads: int | None = None) -> Any:
    """Returns a `tf.data.Dataset` without tuning.

    A map with `num_parallel_calls=tf.data.AUTOTUNE` then runs as many calls at a time as the dataset has private
    threads, or, without private threads, as many as there are cores, up to 16. Give `prefetch` a number: without
    tuning, AUTOTUNE buffers without a bound.

    Args:
        dataset: the dataset.
        threads: the number of private threads; by default those that the dataset has.
    """
    before = dataset.options()
    options = type(before)()  # avoids an import of TensorFlow
    options.autotune.enabled = False
    threads = threads or before.threading.private_threadpool_size
    if threads:
        options.autotune.initial_parallelism = threads
        options.threading.private_threadpool_size = threads
    return dataset.with_options(options)


def usual_threads() -> int:
    """Returns the usual threads of a pipeline in this process: `THREADS_A_CORE` for each core that it may use."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return THREADS_A_CORE * cores
