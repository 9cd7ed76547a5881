"""The initial weights that a seed gives on TensorFlow, on Keras's other backends too."""

import contextlib
import math
from collections.abc import Iterator

import keras


@contextlib.contextmanager
def drawn_by_tensorflow() -> Iterator[None]:
    """Makes TensorFlow draw the kernels of layers that are built inside, if they have Keras's default initializer.

    From one seed, Keras gives each initializer the same seed on every backend, but each backend draws other numbers
    from it. The kernels here are bit for bit those of the TensorFlow backend, where the context manager does nothing.
    All other initial values of a PolyNet are constants.
    """
    if keras.backend.backend() == "tensorflow":
        yield
        return
    import tensorflow as tf

    def kernel(initializer, shape, dtype=None):
        *window, inputs, outputs = shape
        # In Keras's order, for the last bit.
        limit = math.sqrt(3.0 * (1.0 / max(1.0, math.prod(window) * (inputs + outputs) / 2.0)))
        dtype = keras.backend.standardize_dtype(dtype)
        seed = tf.constant([initializer.seed, 0], "int32")
        drawn = tf.random.stateless_uniform(shape, seed, tf.cast(-limit, dtype), tf.cast(limit, dtype), dtype)
        return keras.ops.convert_to_tensor(drawn.numpy())

    keras.initializers.GlorotUniform.__call__ = kernel
    try:
        yield
    finally:
        del keras.initializers.GlorotUniform.__call__  # the one of its base class comes back
