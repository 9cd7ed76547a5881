"""Batches as Keras's `fit` hands them to a step on TensorFlow."""

import keras
import tensorflow as tf


def without_optionals(data):
    """Keras wraps the `None` that a generator yields, for a dataset cannot hold it."""
    return keras.tree.map_structure(lambda x: None if isinstance(x, tf.experimental.Optional) else x, data)


def open_batch(data):
    """The specification of tensors, with any batch size; of distributed values their own."""

    def spec(x):
        if not isinstance(x, tf.Tensor):
            return None if x is None else tf.type_spec_from_value(x)
        return tf.TensorSpec((None, *x.shape[1:]) if x.shape.rank else (), x.dtype)

    return keras.tree.map_structure(spec, data)
