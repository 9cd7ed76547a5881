"""Batches as Keras passes them to a step on TensorFlow, and the distribution of a batch in memory to the replicas."""

import keras
import tensorflow as tf

from polynet_keras.cluster.workers import worker_count, worker_index


def without_optionals(data):
    """Unwraps the `None` of a generator, which Keras wraps because a dataset cannot hold it."""
    return keras.tree.map_structure(lambda x: None if isinstance(x, tf.experimental.Optional) else x, data)


def open_batch(data):
    """Returns the specification of tensors with any batch size; distributed values keep their own specification."""

    def spec(x):
        if not isinstance(x, tf.Tensor):
            return None if x is None else tf.type_spec_from_value(x)
        return tf.TensorSpec((None, *x.shape[1:]) if x.shape.rank else (), x.dtype)

    return keras.tree.map_structure(spec, data)


def share_of_worker(batch, strategy: tf.distribute.Strategy):
    """Returns a worker's part of a batch that every worker holds completely.

    Args:
        batch: nest of arrays or tensors (batch, ...), and `None`.
        strategy: the strategy whose replicas share the batch, in their order, as evenly as possible.

    Returns:
        The nest with tensors, or with distributed values if this worker has several replicas.
    """
    replicas = strategy.num_replicas_in_sync
    local = replicas // worker_count(strategy)
    first = worker_index(strategy) * local

    def part_of(replica: int):
        def part(value):
            if value is None:
                return None
            value = tf.convert_to_tensor(value)
            if value.shape.rank == 0:
                return value
            count = value.shape[0]
            return value[count * replica // replicas : count * (replica + 1) // replicas]

        return keras.tree.map_structure(part, batch)

    if local == 1:
        return part_of(first)
    parts = [part_of(first + number) for number in range(local)]

    def distributed(*values):
        if values[0] is None:
            return None
        return strategy.experimental_distribute_values_from_function(
            lambda context: values[context.replica_id_in_sync_group - first]
        )

    return _zipped(distributed, parts)


def _zipped(function, nests: list):
    """Applies `function` to the leaves at the same place of several nests; `None` is a leaf."""
    flat = [keras.tree.flatten(nest) for nest in nests]
    return keras.tree.pack_sequence_as(nests[0], [function(*leaves) for leaves in zip(*flat, strict=True)])
