"""Faster creation of thousands of TensorFlow variables."""

import contextlib
from collections.abc import Iterator

import keras


@contextlib.contextmanager
def plain_variable_names() -> Iterator[None]:
    """Gives all TensorFlow variables made inside one TensorFlow name; their Keras names and paths stay the same.

    TensorFlow compiles and keeps one kernel for each distinct variable name, 0.5 ms and 30 KB each. For the 2,700
    variables of G5, this is a quarter of the build time. On the other backends, the context manager does nothing.
    """
    if keras.backend.backend() != "tensorflow":
        yield
        return
    import tensorflow as tf

    def creator(next_creator, **arguments):
        # The slash keeps the names of the surrounding scopes out.
        return next_creator(**{**arguments, "name": "variable/"})

    with tf.variable_creator_scope(creator):
        yield
