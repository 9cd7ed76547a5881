"""Whole models in `.keras` files."""

import os
import zipfile
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO

import h5py
import keras

from polynet_keras.basics.files import open_regular
from polynet_keras.basics.names import quoted, shown
from polynet_keras.pretrained.archives import KERAS_MEMBER, ZIP_SIGNATURE, BoundedReads, member_names, unpacked_member
from polynet_keras.pretrained.hdf5 import check_arrays, check_heaps
from polynet_keras.pretrained.open_file import DAMAGE, DEFAULT_BUDGET, reason_of

CONFIG_MEMBER, MAX_CONFIG = "config.json", 16 << 20
"""The layers of a whole model, as text."""
METADATA_MEMBER, MAX_METADATA = "metadata.json", 1 << 20


def load_model_file(path: str | os.PathLike, compile: bool = False) -> keras.Model:
    """Loads a model that `model.save` wrote, in Keras's safe mode.

    Its members and arrays are bounded before Keras reads them (`check_model_file`); the layers that its
    configuration names are not: they take the memory that they need.

    Args:
        path: of the file.
        compile: with its optimizer and loss.

    Raises:
        ValueError: there is no such file, or it cannot be read; the message names it.
    """
    name = shown(path)
    if not Path(path).is_file():
        raise ValueError(
            f"{name}: no such file; name a run that is finished: `polynet train --run_dir=RUN` resumes an "
            "unfinished one"
        )
    try:
        with open_regular(path) as file:
            check_model_file(file)
    except ValueError as error:
        raise ValueError(f"{name}: not a readable Keras model: it {reason_of(error)}") from None
    except DAMAGE as error:
        raise ValueError(f"{name}: not a readable Keras model: {reason_of(error)}") from None
    try:
        return keras.saving.load_model(path, compile=compile, safe_mode=True)
    except MemoryError:
        raise
    except Exception as error:  # a configuration calls constructors: a wrong one can raise anything
        raise ValueError(f"{name}: not a readable Keras model: {reason_of(error)}") from error


def check_model_file(file: BinaryIO) -> None:
    """Refuses a `.keras` file of a whole model that claims more than it holds, before Keras reads it.

    Its members are bounded, and its arrays have to be whole in it, as those of a weights file. What layers its
    configuration names is not looked at.

    Raises:
        ValueError: the file is none, or claims more; the message goes on after the file's name.
        Others: those of `DAMAGE`.
    """
    if file.read(len(ZIP_SIGNATURE)) != ZIP_SIGNATURE:
        raise ValueError("is not an archive, as `model.save` writes it")
    with ExitStack() as stack:
        with zipfile.ZipFile(BoundedReads(file)) as archive:
            names = member_names(archive)
            for name in (CONFIG_MEMBER, KERAS_MEMBER):
                if names.count(name) != 1:
                    raise ValueError(f"is an archive that has {name!r} {names.count(name)} times")
            for info in archive.infolist():
                most = {CONFIG_MEMBER: MAX_CONFIG, METADATA_MEMBER: MAX_METADATA}.get(info.filename, DEFAULT_BUDGET)
                # A member that is stored as it is takes no more than the archive, unless it is a text that is parsed.
                bounded = info.filename in (CONFIG_MEMBER, METADATA_MEMBER)
                if (bounded or info.compress_type != zipfile.ZIP_STORED) and info.file_size > most:
                    raise ValueError(f"is an archive whose {quoted(info.filename)} is larger than {most:,} bytes")
            # Keras may unpack all of them.
            if sum(info.file_size for info in archive.infolist()) > file.seek(0, os.SEEK_END) + DEFAULT_BUDGET:
                raise ValueError(f"is an archive whose members are together {DEFAULT_BUDGET:,} bytes larger than it")
            weights = unpacked_member(archive, KERAS_MEMBER, stack, DEFAULT_BUDGET)
        check_heaps(weights)
        check_arrays(stack.enter_context(h5py.File(weights, "r")))
