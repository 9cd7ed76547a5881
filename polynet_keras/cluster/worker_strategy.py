"""TensorFlow's strategy for several workers, with limited waits and with datasets whose iterators end at once.

In TensorFlow 2.21 and before, an iterator that ends wakes the thread that tunes it before it marks it as cancelled.
Where that thread looks first, which on a worker's only core it does, the end waits for the thread's next turn: after
every epoch up to a minute, and the other workers with it. So these datasets are not tuned: numbers of calls that are
left to `tf.data.AUTOTUNE` are the number of threads of the dataset's own pool, or up to 16 of TensorFlow's.
"""

import contextlib

import tensorflow as tf
from absl import logging

from polynet_keras.cluster.patience import waiting


class MultiWorkerStrategy(tf.distribute.MultiWorkerMirroredStrategy):
    """See the module; what sums outside of steps waits as they do: `reduce`, by which a dataset's end and the values of
    metrics are found too, and a new variable, which takes the chief's value."""

    def __init__(self, cluster_resolver=None, communication_options=None):
        super().__init__(cluster_resolver, communication_options)
        untune_device_datasets()
        create_variable = self.extended._create_variable

        def create_limited(next_creator, **kwargs):
            with waiting(self):
                return create_variable(next_creator, **kwargs)

        self.extended._create_variable = create_limited

    def reduce(self, reduce_op, value, axis):
        with waiting(self) if tf.executing_eagerly() else contextlib.nullcontext():
            return super().reduce(reduce_op, value, axis)

    def experimental_distribute_dataset(self, dataset, options=None):
        return super().experimental_distribute_dataset(_untuned(dataset), options)

    def distribute_datasets_from_function(self, dataset_fn, options=None):
        return super().distribute_datasets_from_function(lambda context: _untuned(dataset_fn(context)), options)


def _untuned(dataset: tf.data.Dataset) -> tf.data.Dataset:
    options = tf.data.Options()
    options.autotune.enabled = False
    # As many calls as the dataset's own pool has threads; TensorFlow's default ends at 16.
    threads = dataset.options().threading.private_threadpool_size
    if threads:
        options.autotune.initial_parallelism = threads
    return dataset.with_options(options)


def untune_device_datasets() -> None:
    """TensorFlow puts a dataset of its own, with options of its own, between a distributed dataset and each device.

    This makes those of the whole process untuned. A second call changes nothing.
    """
    from tensorflow.python.data.ops import multi_device_iterator_ops as ops  # none of this has a public name

    create = getattr(ops, "_create_device_dataset", None)
    if create is None:
        logging.warning("TensorFlow %s feeds its devices otherwise; epochs may end slowly", tf.__version__)
    elif create.__module__ != __name__:

        def create_untuned(*args, **kwargs):
            return _untuned(create(*args, **kwargs))

        ops._create_device_dataset = create_untuned
