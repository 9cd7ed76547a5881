"""The place of this process among the workers of a TensorFlow strategy."""

import contextlib
from typing import Any

import tensorflow as tf


def model_strategy(model: Any) -> tf.distribute.Strategy | None:
    """Returns the strategy of a model, TensorFlow's default one included; None on Keras's other backends."""
    return getattr(model, "distribute_strategy", None)


def scope_of(strategy: tf.distribute.Strategy | None) -> contextlib.AbstractContextManager:
    """Returns the context in which the variables of a strategy are made and assigned."""
    return contextlib.nullcontext() if strategy is None else strategy.scope()


def worker_index(strategy: tf.distribute.Strategy) -> int:
    """Returns the index of this worker, from 0; 0 if there is one process."""
    resolver = strategy.cluster_resolver
    if worker_count(strategy) == 1 or resolver is None:
        return 0
    # A job named `chief` has one task, which comes first.
    jobs = resolver.cluster_spec().as_dict()
    first = len(jobs.get("chief", ())) if resolver.task_type == "worker" else 0
    return first + (resolver.task_id or 0)


def worker_count(strategy: tf.distribute.Strategy | None) -> int:
    """Returns the number of processes that train together."""
    if not isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy) or strategy.cluster_resolver is None:
        return 1
    jobs = strategy.cluster_resolver.cluster_spec().as_dict()
    return max(1, sum(len(jobs.get(job, ())) for job in ("chief", "worker")))


def is_chief(strategy: tf.distribute.Strategy | None) -> bool:
    """Whether this process writes files and shows progress."""
    return strategy is None or worker_index(strategy) == 0
