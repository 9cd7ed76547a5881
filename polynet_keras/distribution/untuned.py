"""Datasets of several workers whose iterators end at once: without the autotuning of tf.data.

In TensorFlow 2.21 and before, an iterator that ends wakes the thread that tunes it before it marks it as cancelled.
Where that thread looks first, which on a worker's only core it does, the end waits for the thread's next turn: after
every epoch up to a minute, and the other workers with it. Numbers of calls that are left to `tf.data.AUTOTUNE` are then
the number of threads.
"""

import tensorflow as tf
from absl import logging


class MultiWorkerStrategy(tf.distribute.MultiWorkerMirroredStrategy):
    """TensorFlow's, with such datasets."""

    def __init__(self, cluster_resolver, communication_options):
        super().__init__(cluster_resolver, communication_options)
        _untune_device_datasets()

    def experimental_distribute_dataset(self, dataset, options=None):
        return super().experimental_distribute_dataset(_untuned(dataset), options)

    def distribute_datasets_from_function(self, dataset_fn, options=None):
        return super().distribute_datasets_from_function(lambda context: _untuned(dataset_fn(context)), options)


def _untuned(dataset: tf.data.Dataset) -> tf.data.Dataset:
    options = tf.data.Options()
    options.autotune.enabled = False
    return dataset.with_options(options)


def _untune_device_datasets() -> None:
    """TensorFlow puts a dataset of its own, with options of its own, between a distributed dataset and each device."""
    from tensorflow.python.data.ops import multi_device_iterator_ops as ops  # none of this has a public name

    create = getattr(ops, "_create_device_dataset", None)
    if create is None:
        logging.warning("TensorFlow %s feeds its devices otherwise; epochs may end slowly", tf.__version__)
    else:
        ops._create_device_dataset = lambda *args, **kwargs: _untuned(create(*args, **kwargs))
