"""The place of this process among the workers of a TensorFlow strategy."""

import tensorflow as tf


def worker_index(strategy: tf.distribute.Strategy) -> int:
    """Returns the index of this worker, from 0; 0 if there is one process."""
    resolver = strategy.cluster_resolver
    if worker_count(strategy) == 1 or resolver is None:
        return 0
    # A job named `chief` has one task, which comes first.
    jobs = resolver.cluster_spec().as_dict()
    first = len(jobs.get("chief", ())) if resolver.task_type == "worker" else 0
    return first + (resolver.task_id or 0)


def worker_count(strategy: tf.distribute.Strategy) -> int:
    """Returns the number of processes that train together."""
    if not isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy) or strategy.cluster_resolver is None:
        return 1
    jobs = strategy.cluster_resolver.cluster_spec().as_dict()
    return max(1, sum(len(jobs.get(job, ())) for job in ("chief", "worker")))


def is_chief(strategy: tf.distribute.Strategy | None) -> bool:
    """Whether this process writes files and shows progress."""
    return strategy is None or worker_index(strategy) == 0
