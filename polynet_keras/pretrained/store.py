"""The files of published checkpoints on this machine: found, fetched, verified, and converted once."""

import hashlib
import os
import random
import zipfile
from collections.abc import Callable
from pathlib import Path

import keras
from absl import logging

from polynet_keras.data.files import locked, written_whole
from polynet_keras.pretrained.conversion import load_weights_file
from polynet_keras.pretrained.download import DownloadError, WrongHashError, download
from polynet_keras.pretrained.formats import DAMAGE, MAX_BYTES, Format
from polynet_keras.pretrained.registry import PublishedCheckpoint

FOLDER_VARIABLE = "POLYNET_WEIGHTS_DIR"
MIRROR_VARIABLE = "POLYNET_WEIGHTS_MIRROR"
PACKAGE = Path(__file__).parent.parent
SHIPPED_FOLDERS = (PACKAGE / "weights", PACKAGE.parent / "weights")
"""Of an installed package and of a source checkout."""
BLOCK = 1 << 22
CONVERSION = 1
"""To be raised when a change makes other numbers of the same published file: what was kept is then made anew."""


def cache_folder() -> Path:
    """Where fetched and converted files are kept: `models` in `KERAS_HOME` or `~/.keras`, where Keras keeps its own."""
    return Path(os.environ.get("KERAS_HOME") or Path.home() / ".keras", "models")


def weights_file(checkpoint: PublishedCheckpoint, build: Callable[[], keras.Model]) -> Path:
    """The file to load a checkpoint from: this package's own, or a published one converted and cached.

    Args:
        checkpoint: which.
        build: makes the checkpoint's whole network, to convert it with; called where no converted file is there yet.

    Raises:
        ValueError: the file found is not the published one.
        OSError: there is none, and it cannot be fetched.
    """
    if checkpoint.format is Format.KERAS:
        return source_file(checkpoint)
    target = cache_folder() / f"{checkpoint.file.partition('.')[0]}.weights.h5"
    if _is_sealed(target):
        return target
    source = source_file(checkpoint)
    if keras.config.dtype_policy().variable_dtype != "float32":
        return source  # a network converted now would keep fewer digits than the file has
    try:
        with locked(target):
            if not _is_sealed(target):  # else another process was faster
                logging.info("converting %s to %s, once", source, target)
                # The caller's random numbers are to be the same, whether something was converted or not.
                state = random.getstate()
                try:
                    model = build()
                finally:
                    random.setstate(state)
                load_weights_file(model, source)
                with written_whole(target) as partial:
                    model.save_weights(partial)
                _seal(target).write_text(_seal_of(target))
    except OSError as error:
        logging.warning("%s cannot be kept, it is converted at each use: %s", target, error)
        return source
    return target


def source_file(checkpoint: PublishedCheckpoint) -> Path:
    """The published file, verified; fetched if it is nowhere on this machine.

    Looked for in the package, then in the folder that `POLYNET_WEIGHTS_DIR` names (and nowhere else if it is set), then
    in the cache, then on the network. `POLYNET_WEIGHTS_MIRROR` may name folders of web servers, split by blanks, to try
    before the publisher's own.

    Raises:
        ValueError: the file found is not the published one.
        OSError: there is none, and it cannot be fetched.
    """

    def verified(path: Path) -> Path:
        verify(path, checkpoint)
        return path

    if not checkpoint.urls:
        for folder in SHIPPED_FOLDERS:
            if (folder / checkpoint.file).is_file():
                return verified(folder / checkpoint.file)
        raise FileNotFoundError(f"{checkpoint.file} is not in this installation; install the package again")
    if os.environ.get(FOLDER_VARIABLE):
        path = Path(os.environ[FOLDER_VARIABLE], checkpoint.file)
        if path.is_file():
            return verified(path)
        raise FileNotFoundError(f"{path} is not there; {FOLDER_VARIABLE} names the only folder that is looked in")
    target = cache_folder() / checkpoint.file
    if target.is_file():
        try:
            return verified(target)
        except WrongHashError as error:
            logging.warning("%s; it is fetched again", error)
    mirrors = [f"{mirror.rstrip('/')}/{checkpoint.file}" for mirror in os.environ.get(MIRROR_VARIABLE, "").split()]
    try:
        download([*mirrors, *checkpoint.urls], target, lambda path: verify(path, checkpoint), size=checkpoint.size)
    except DownloadError as error:
        raise DownloadError(
            f"weights={checkpoint.name!r}: {error}. Where there is no network: put the file into a folder and name it "
            f"with {FOLDER_VARIABLE}, or pass its path as weights"
        ) from None
    return target


def verify(path: Path, checkpoint: PublishedCheckpoint) -> None:
    """Raises a `WrongHashError` unless `path` is the published file."""
    found = _hash(path, checkpoint.algorithm, member=checkpoint.hash_of == "member")
    if not found.startswith(checkpoint.digest):
        raise WrongHashError(
            f"{path} is not the published {checkpoint.file}: its {checkpoint.algorithm} is {found}, expected is "
            f"{checkpoint.digest}"
        )


def _hash(path: Path, algorithm: str, member: bool = False) -> str:
    """Of a file, or of the one file in a zip archive."""
    if not member:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, algorithm).hexdigest()
    digest, length = hashlib.new(algorithm), 0
    try:
        with zipfile.ZipFile(path) as archive:
            (name,) = archive.namelist()
            with archive.open(name) as content:
                while (block := content.read(BLOCK)) and length <= MAX_BYTES:
                    digest.update(block)
                    length += len(block)
    except (*DAMAGE, ValueError) as error:
        raise WrongHashError(f"{path} is no archive of one file: {error}") from None
    return digest.hexdigest()


def _is_sealed(target: Path) -> bool:
    """Whether a converted file is there, is what was written, and was written by this version of the conversion."""
    seal = _seal(target)
    return target.is_file() and seal.is_file() and seal.read_text() == _seal_of(target)


def _seal(target: Path) -> Path:
    return target.with_name(f"{target.name}.sha256")


def _seal_of(target: Path) -> str:
    return f"{_hash(target, 'sha256')}  {target.name}, conversion {CONVERSION}\n"
