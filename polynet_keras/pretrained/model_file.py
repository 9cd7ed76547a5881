"""Whole models in `.keras` files."""

import os
from pathlib import Path

import keras

from polynet_keras.data.files import open_regular
from polynet_keras.data.names import shown
from polynet_keras.pretrained.formats import DAMAGE, check_model_file

MAX_REASON = 500
"""Characters of Keras's own message that are repeated."""


def load_model_file(path: str | os.PathLike, compile: bool = False) -> keras.Model:
    """Loads a model that `model.save` wrote, in Keras's safe mode.

    Its members and arrays are bounded before Keras reads them (`formats.check_model_file`); the layers that its
    configuration names are not: they take the memory that they need.

    Args:
        path: of the file.
        compile: with its optimizer and loss.

    Raises:
        ValueError: there is no such file, or it cannot be read; the message names it.
    """
    name = shown(path)
    if not Path(path).is_file():
        raise ValueError(f"{name}: no such file; name a run folder that `polynet train` has finished")
    try:
        with open_regular(path) as file:
            check_model_file(file)
    except ValueError as error:
        raise ValueError(f"{name}: not a readable Keras model: it {_line(error)}") from None
    except (*DAMAGE, TypeError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else _line(error)
        raise ValueError(f"{name}: not a readable Keras model: {reason}") from None
    try:
        return keras.saving.load_model(path, compile=compile, safe_mode=True)
    except MemoryError:
        raise
    except Exception as error:  # a configuration is what calls constructors: of a wrong one anything can come
        raise ValueError(f"{name}: not a readable Keras model: {_line(error)}") from error


def _line(error: Exception) -> str:
    return shown(" ".join(str(error).split()), MAX_REASON) or type(error).__name__
