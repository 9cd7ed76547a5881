"""Agreement of a strategy's workers: every worker calls these functions, at the same point."""

import numpy as np
import tensorflow as tf

from polynet_keras.cluster.jax_devices import JaxDevices, gathered
from polynet_keras.cluster.workers import Strategy, worker_count, worker_index


def sum_over_workers(strategy: Strategy | None, value: int) -> int:
    """Returns the sum of the workers' numbers: a collective, if there are several workers."""
    if strategy is None or worker_count(strategy) == 1:
        return value
    if isinstance(strategy, JaxDevices):
        halves = gathered(np.array([value], "int64").view("int32"))  # JAX has no 64 bits by default
        return int(halves.view("int64").sum())
    # One replica of each worker contributes its number.
    first = worker_index(strategy) * (strategy.num_replicas_in_sync // worker_count(strategy))

    def number_of(context) -> tf.Tensor:
        return tf.constant(value if context.replica_id_in_sync_group == first else 0, tf.int64)

    numbers = strategy.experimental_distribute_values_from_function(number_of)
    return int(strategy.reduce(tf.distribute.ReduceOp.SUM, numbers, axis=None))


def fail_together(strategy: Strategy | None, failure: ValueError | None) -> None:
    """Raises this worker's failure, or a `ValueError` if only others failed. All workers call this."""
    failures = sum_over_workers(strategy, int(failure is not None))
    if failure is not None:
        raise failure
    if failures:
        raise ValueError(f"{failures} of {worker_count(strategy)} workers cannot continue; their messages say why")
