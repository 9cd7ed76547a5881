"""Thousands of TensorFlow variables, made quickly."""

import contextlib
from collections.abc import Iterator

import keras


@contextlib.contextmanager
def plain_variable_names() -> Iterator[None]:
    """TensorFlow variables made inside share one TensorFlow name; their Keras names and paths are as ever.

    TensorFlow compiles and keeps one kernel for each distinct name of a variable, 0.5 ms and 30 KB each: of G5's
    2,700 variables that is a quarter of the time to build it. On the other backends nothing happens.
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
