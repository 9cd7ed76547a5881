"""What Keras's training on JAX needs before its first step and after its last one."""

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


def separate_averages(model: keras.Model) -> None:
    """Gives the trained variables arrays of their own. Call this at the end of `fit`.

    There Keras assigns the averages of the optimizer (`use_ema`), and both variables then share an array. The next
    step, of `evaluate` too, takes the memory of the arrays that it gets: the averages would be gone.
    """
    optimizer = getattr(model.optimizer, "inner_optimizer", model.optimizer)
    if getattr(optimizer, "use_ema", False):
        for variable in model.trainable_variables:
            variable.assign(keras.ops.copy(variable.value))
