"""Datasets from which every worker reads only its own part, instead of reading all and skipping most of it."""

from collections.abc import Callable

import tensorflow as tf

from polynet_keras.cluster.jax_devices import JaxDevices
from polynet_keras.cluster.workers import Strategy


def distributed_dataset(
    strategy: Strategy | None, dataset_of: Callable[[int, int, int], tf.data.Dataset]
) -> tf.data.Dataset | tf.distribute.DistributedDataset:
    """Makes the data for `fit` and `evaluate` under a strategy from a function that makes one worker's batches.

    Args:
        strategy: the model's strategy; `None` for one device.
        dataset_of: (workers, worker, replicas) → the batches of worker `worker` of `workers`: at each step one batch
            for each of its `replicas` devices, one after the other. All workers need as many steps, or a dataset
            without end.

    Returns:
        A distributed dataset, or `dataset_of(1, 0, 1)` without a strategy. On JAX the dataset of this process, for all
        of its devices.

    Examples:
        >>> import tensorflow as tf
        >>> def batches(workers, worker, replicas):
        ...     return tf.data.Dataset.range(8).shard(workers, worker).batch(4)
        >>> [len(batch) for batch in distributed_dataset(None, batches)]
        [4, 4]
    """
    if strategy is None:
        return dataset_of(1, 0, 1)
    if isinstance(strategy, JaxDevices):
        return dataset_of(strategy.processes, strategy.process, 1)  # a step gives each device its part

    def of_worker(context: tf.distribute.InputContext) -> tf.data.Dataset:
        workers = context.num_input_pipelines
        return dataset_of(workers, context.input_pipeline_id, context.num_replicas_in_sync // workers)

    return strategy.distribute_datasets_from_function(of_worker)
