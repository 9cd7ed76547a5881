"""Before the first step on JAX: the shapes of the data, without reading them."""

from typing import Any

import keras

from polynet_keras.basics import keras_internals


def symbols_of(epoch_iterator: Any) -> Any:
    """Returns symbolic tensors for a batch of a tf.data dataset.

    Args:
        epoch_iterator: Keras's iterator of a call of `fit` or `evaluate`.

    Returns:
        The batch. None for other data, and if the dataset does not know all sizes but that of the batch: Keras then
        reads a batch.
    """
    dataset = keras_internals.dataset_of(epoch_iterator)
    if dataset is None:
        return None
    import tensorflow as tf

    def is_known(spec: Any) -> bool:
        return isinstance(spec, tf.TensorSpec) and spec.shape.rank is not None and None not in spec.shape[1:]

    specs = dataset.element_spec
    if not all(map(is_known, keras.tree.flatten(specs))):
        return None
    return keras.tree.map_structure(lambda spec: keras.KerasTensor(tuple(spec.shape), spec.dtype.name), specs)
