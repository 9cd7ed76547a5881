"""Whole models in `.keras` files."""

import os
import zipfile
from pathlib import Path

import keras


def load_model_file(path: str | os.PathLike, compile: bool = False) -> keras.Model:
    """Loads a model that `model.save` wrote.

    Args:
        path: of the file.
        compile: with its optimizer and loss.

    Raises:
        ValueError: there is no such file, or it cannot be read.
    """
    if not Path(path).is_file():
        raise ValueError(f"{os.fspath(path)}: no such file; name a run folder that `polynet train` has finished")
    try:
        return keras.saving.load_model(path, compile=compile)
    except (OSError, ValueError, TypeError, KeyError, zipfile.BadZipFile) as error:
        raise ValueError(f"{os.fspath(path)}: not a readable Keras model: {error}") from None
