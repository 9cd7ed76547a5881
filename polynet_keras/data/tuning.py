"""Datasets that tf.data does not tune while they run, so that their iterators end at once.

In TensorFlow 2.21 and before, an iterator that ends wakes the thread that tunes it before it marks it as cancelled. If
the thread looks first, it sees nothing and sleeps on, and the end waits for it: up to a minute, at the end of each
epoch and of each evaluation. Without tuning there is no such thread.
"""

import os

import tensorflow as tf

THREADS_A_CORE = 2
"""Of a pipeline: with one, a core is idle while its thread waits for another's copy, 8 % of the time on two."""


def untuned(dataset: tf.data.Dataset, threads: int | None = None) -> tf.data.Dataset:
    """The dataset with threads of its own and without tuning.

    A map with `num_parallel_calls=tf.data.AUTOTUNE` then runs as many calls at a time as there are threads. Give
    `prefetch` a number: without tuning, what AUTOTUNE buffers has no bound.

    Args:
        dataset: any.
        threads: by default `THREADS_A_CORE` for each core of this process.
    """
    threads = threads or THREADS_A_CORE * cores()
    options = tf.data.Options()
    options.autotune.enabled = False
    options.autotune.initial_parallelism = threads
    options.threading.private_threadpool_size = threads
    return dataset.with_options(options)


def cores() -> int:
    """How many this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
