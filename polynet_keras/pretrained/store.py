"""The files of published checkpoints on this machine: found, fetched, verified, and converted once."""

import errno
import os
import random
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import BinaryIO

import keras
from absl import logging

from polynet_keras.basics.files import digest_of, open_regular, written_whole
from polynet_keras.basics.holding import locked
from polynet_keras.basics.news import tell
from polynet_keras.pretrained.archives import only_member
from polynet_keras.pretrained.conversion import load_weights_file
from polynet_keras.pretrained.download import TIMEOUT_VARIABLE, DownloadError, WrongHashError, download
from polynet_keras.pretrained.open_file import DAMAGE, OpenFile
from polynet_keras.pretrained.registry import PublishedCheckpoint
from polynet_keras.pretrained.stored_arrays import Format

FOLDER_VARIABLE = "POLYNET_WEIGHTS_DIR"
MIRROR_VARIABLE = "POLYNET_WEIGHTS_MIRROR"
PACKAGE = Path(__file__).parent.parent
SHIPPED_FOLDERS = (PACKAGE / "weights", PACKAGE.parent / "weights")
"""Of an installed package and of a source checkout."""
MAX_SEAL = 1 << 12
CONVERSION = 1
"""To be raised when a change makes other numbers of the same published file: what was kept is then made anew."""


def cache_folder() -> Path:
    """Where fetched and converted files are kept: `models` in `KERAS_HOME` or `~/.keras`, where Keras keeps its own."""
    return Path(os.environ.get("KERAS_HOME") or Path("~", ".keras"), "models").expanduser()


@contextmanager
def opened_weights(checkpoint: PublishedCheckpoint, build: Callable[[], keras.Model]) -> Iterator[OpenFile]:
    """The file to load a checkpoint from: this package's own, or a published one converted and cached.

    It is open, and is verified as it is open: what its name stands for later does not matter.

    Args:
        checkpoint: which.
        build: makes the checkpoint's whole network, to convert it with; called where no converted file is there yet.

    Raises:
        ValueError: the file found is not the published one.
        OSError: there is none, and it cannot be fetched.
    """
    ours = checkpoint.format is Format.KERAS
    target = cache_folder() / f"{checkpoint.file.partition('.')[0]}.weights.h5"
    with ExitStack() as stack:
        file = None if ours else _opened_if_sealed(target, stack)
        if file is None:
            file = stack.enter_context(opened_source(checkpoint))
            # A network of another dtype, converted now, would keep fewer digits than the file has.
            if not ours and keras.config.dtype_policy().variable_dtype == "float32":
                file = _converted(file, target, build, stack) or file
        yield file


def _converted(source: OpenFile, target: Path, build: Callable[[], keras.Model], stack: ExitStack) -> OpenFile | None:
    """Makes `target` of a published file, and opens it; `None` if it cannot be kept."""
    try:
        with locked(target):
            if done := _opened_if_sealed(target, stack):
                return done  # another process was faster
            tell("converting %s to %s, once", source.path, target)
            # The caller's random numbers must not depend on a conversion.
            state = random.getstate()
            try:
                model = build()
            finally:
                random.setstate(state)
            load_weights_file(model, source)
            with written_whole(target) as partial:
                model.save_weights(partial)
            with open(target, "rb") as file:
                _seal(target).write_text(_seal_of(target, file))
            return _opened_if_sealed(target, stack)
    except OSError as error:
        logging.warning("%s cannot be kept; it is converted at each use: %s", target, error)
        return None


@contextmanager
def opened_source(checkpoint: PublishedCheckpoint) -> Iterator[OpenFile]:
    """The published file, open and verified; fetched if it is nowhere on this machine.

    Looked for in the package, then in the folder that `POLYNET_WEIGHTS_DIR` names (and nowhere else if it is set), then
    in the cache, then on the network. `POLYNET_WEIGHTS_MIRROR` may name folders of web servers, split by blanks, to try
    before the publisher's own.

    Raises:
        ValueError: the file found is not the published one.
        OSError: there is none, and it cannot be fetched or kept.
    """
    path = _given_file(checkpoint)
    with ExitStack() as stack:
        file = None
        if path is None:
            path = cache_folder() / checkpoint.file
            if path.is_file():
                try:
                    file = stack.enter_context(opened_if_published(path, checkpoint))
                except WrongHashError as error:
                    logging.warning("%s; it is fetched again", error)
            if file is None:
                _fetch(checkpoint, path)
        yield file or stack.enter_context(opened_if_published(path, checkpoint))


def source_file(checkpoint: PublishedCheckpoint) -> Path:
    """Where the published file is, for people to see; what is read is what `opened_source` has opened.

    Raises:
        Those of `opened_source`.
    """
    with opened_source(checkpoint) as file:
        return file.path


def _given_file(checkpoint: PublishedCheckpoint) -> Path | None:
    """The file in this package, or in the folder that the environment names; `None` if it is for the cache."""
    if not checkpoint.urls:
        for folder in SHIPPED_FOLDERS:
            if (folder / checkpoint.file).is_file():
                return folder / checkpoint.file
        raise FileNotFoundError(f"{checkpoint.file} is not in this installation; install the package again")
    if not os.environ.get(FOLDER_VARIABLE):
        return None
    path = Path(os.environ[FOLDER_VARIABLE], checkpoint.file).expanduser()
    if path.is_file():
        return path
    raise FileNotFoundError(f"{path} does not exist; with {FOLDER_VARIABLE} no other folder is searched")


def _fetch(checkpoint: PublishedCheckpoint, target: Path) -> None:
    mirrors = [f"{mirror.rstrip('/')}/{checkpoint.file}" for mirror in os.environ.get(MIRROR_VARIABLE, "").split()]
    try:
        download([*mirrors, *checkpoint.urls], target, lambda path: verify(path, checkpoint), size=checkpoint.size)
    except DownloadError as error:
        raise DownloadError(
            f"weights={checkpoint.name!r}: {error}. Without a network: download {checkpoint.urls[0]} elsewhere, and "
            f"save it as {target}, or in a folder that {FOLDER_VARIABLE} names ({_hash_text(checkpoint)}). For a "
            f"server that is slow to answer, set {TIMEOUT_VARIABLE}=60, in seconds"
        ) from None
    except OSError as error:
        raise OSError(
            f"weights={checkpoint.name!r}: {target} cannot be written: {error.strerror or error}. Name another place "
            f"with KERAS_HOME, or put the file into a folder and name it with {FOLDER_VARIABLE}"
        ) from None


def _hash_text(checkpoint: PublishedCheckpoint) -> str:
    hashed = "the file inside the zip" if checkpoint.hash_of == "member" else "the file"
    return f"the {checkpoint.algorithm} of {hashed} begins with {checkpoint.digest}"


def verify(path: Path, checkpoint: PublishedCheckpoint) -> None:
    """Raises a `WrongHashError` unless `path` is the published file."""
    with opened_if_published(path, checkpoint):
        pass


@contextmanager
def opened_if_published(path: Path, checkpoint: PublishedCheckpoint) -> Iterator[OpenFile]:
    """Opens a file whose bytes have the published hash.

    Where the publisher gave the hash of an archive's one file, that file is what is hashed and what is opened, so that
    nothing else in the archive, in front of it or behind it, can be taken for it.

    Raises:
        WrongHashError: the file has another hash.
        OSError: it cannot be read.
    """
    with ExitStack() as stack:
        try:
            whole = stack.enter_context(open_regular(path))
            content = stack.enter_context(only_member(whole)) if checkpoint.hash_of == "member" else whole
        except (*DAMAGE, ValueError) as error:
            if isinstance(error, OSError) and (error.errno == errno.ENOSPC or not path.is_file()):
                raise
            reason = str(error) if isinstance(error, ValueError) else f"is not an archive of one file: {error}"
            raise WrongHashError(f"{path} {reason}") from None
        found = digest_of(content, checkpoint.algorithm)
        if not found.startswith(checkpoint.digest):
            raise WrongHashError(
                f"{path} is not the published {checkpoint.file}: its {checkpoint.algorithm} is {found}; that of the "
                f"published file begins with {checkpoint.digest}"
            )
        yield OpenFile(path, whole, content)


def _opened_if_sealed(target: Path, stack: ExitStack) -> OpenFile | None:
    """A converted file, if it is what was written, and was written by this version of the conversion."""
    try:
        seal = open_regular(_seal(target))
        with seal:
            text = seal.read(MAX_SEAL)
        file = stack.enter_context(open_regular(target))
    except (OSError, ValueError):
        return None
    return OpenFile(target, file, file) if text.decode(errors="replace") == _seal_of(target, file) else None


def _seal(target: Path) -> Path:
    return target.with_name(f"{target.name}.sha256")


def _seal_of(target: Path, file: BinaryIO) -> str:
    return f"{digest_of(file)}  {target.name}, conversion {CONVERSION}\n"
