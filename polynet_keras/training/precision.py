"""The precision of a recipe, which Keras takes from a policy of the process when it builds and loads."""

import contextlib
from collections.abc import Iterator

import keras


@contextlib.contextmanager
def precision(policy: str) -> Iterator[None]:
    """Within it, layers are built in this precision, and optimizers are compiled and loaded to scale float16's loss."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)
