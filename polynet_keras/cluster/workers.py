"""The place of this process among the workers of a strategy."""

import contextlib
from typing import Any, TypeAlias

import tensorflow as tf

from polynet_keras.cluster.jax_devices import JaxDevices, jax_devices

Strategy: TypeAlias = tf.distribute.Strategy | JaxDevices
"""The devices of a training: a strategy of TensorFlow or, on JAX, all of its devices."""


def model_strategy(model: Any) -> Strategy | None:
    """Returns the strategy of a model, TensorFlow's default one included; None on one device of another backend."""
    return getattr(model, "distribute_strategy", None) or jax_devices()


def scope_of(strategy: Strategy | None) -> contextlib.AbstractContextManager:
    """Returns the context in which the variables of a strategy are made and assigned."""
    return contextlib.nullcontext() if strategy is None else strategy.scope()


def worker_index(strategy: Strategy) -> int:
    """Returns the index of this worker, from 0; 0 if there is one process."""
    if isinstance(strategy, JaxDevices):
        return strategy.process
    resolver = strategy.cluster_resolver
    if worker_count(strategy) == 1 or resolver is None:
        return 0
    # A job named `chief` has one task, which comes first.
    jobs = resolver.cluster_spec().as_dict()
    first = len(jobs.get("chief", ())) if resolver.task_type == "worker" else 0
    return first + (resolver.task_id or 0)


def worker_count(strategy: Strategy | None) -> int:
    """Returns the number of processes that train together."""
    if isinstance(strategy, JaxDevices):
        return strategy.processes
    if not isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy) or strategy.cluster_resolver is None:
        return 1
    jobs = strategy.cluster_resolver.cluster_spec().as_dict()
    return max(1, sum(len(jobs.get(job, ())) for job in ("chief", "worker")))


def is_chief(strategy: Strategy | None) -> bool:
    """Whether this process writes files and shows progress."""
    return strategy is None or worker_index(strategy) == 0
