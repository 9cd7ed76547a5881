"""The precision of a recipe, which Keras takes from a global policy when it builds and loads."""

import contextlib
from collections.abc import Iterator

import keras


@contextlib.contextmanager
def precision(policy: str) -> Iterator[None]:
    """Sets the precision inside: of layers that are built, and of optimizers, which scale the loss for float16."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)
