"""The files of a training's checkpoints: written completely or not at all, read only if every checksum is right.

A checkpoint is a bundle of TensorFlow, `checkpoint-N.index` and `checkpoint-N.data-00000-of-00001`: tensors by name,
each with its CRC-32C. One of them is the JSON of all values that are not tensors. TensorFlow writes both to temporary
files, which it renames when they are complete, the index last. It does not wait until they are on the disk: after a
power failure the checksums show the damage. The files in the folder are the only list of checkpoints.
`tf.train.CheckpointManager` keeps a second list, in a file that it replaces afterwards. If the process is killed
between the two, that list lacks the newest checkpoint.
"""

import json
import os
import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from absl import logging

from polynet_keras.basics.names import number_of
from polynet_keras.basics.tensorflow_errors import plain_message
from polynet_keras.cluster.shared_folder import look_again

FACTS = "facts"
"""The name of the tensor that holds the JSON."""

FORMAT = 1
DATA = ".data-00000-of-00001"


class SavedState:
    """A checkpoint on disk. All its tensors have been read once and verified.

    Attributes:
        number: the number of the checkpoint; a later one has a higher number.
        path: the path of its files, without their endings.
        facts: the saved values that are not tensors.

    Raises:
        ValueError: a file is missing, cut short or damaged; the message names it.
    """

    def __init__(self, path: Path, number: int):
        self.number = number
        self.path = path
        try:
            self._reader = tf.train.load_checkpoint(os.fspath(path))
            for name in self._reader.get_variable_to_shape_map():
                self._reader.get_tensor(name)  # verifies its checksum
            self.facts = json.loads(self._reader.get_tensor(FACTS))
        # The error depends on the place of the damage: TensorFlow raises its own errors and Python's.
        except Exception as error:
            raise ValueError(f"{path}{_damaged_file(path)} cannot be read: {plain_message(error)}") from None
        if self.facts.get("format") != FORMAT:
            raise ValueError(f"{path}.index has format {self.facts.get('format')!r}; this version reads {FORMAT}")

    def tensor(self, name: str) -> np.ndarray:
        """Returns a tensor by its name.

        Raises:
            ValueError: the tensor can no longer be read.
        """
        try:
            return self._reader.get_tensor(name)
        except Exception as error:
            raise ValueError(f"{self.path}{_damaged_file(self.path)} cannot be read: {plain_message(error)}") from None


class CheckpointFiles:
    """The checkpoints in a folder.

    Args:
        folder: a folder that holds nothing else; it need not exist.
        keep: how many of the newest to keep.
    """

    def __init__(self, folder: str | os.PathLike, keep: int):
        self.folder = Path(folder)
        self._keep = keep
        self._rejected: set[int] = set()

    def numbers(self) -> list[int]:
        """Returns the numbers of the checkpoints in the folder, oldest first.

        Raises:
            ValueError: the folder cannot be listed.
        """
        try:
            names = os.listdir(self.folder)
        except FileNotFoundError:
            return []
        except OSError as error:
            raise ValueError(f"folder={os.fspath(self.folder)!r} cannot be read: {error.strerror}") from None
        matches = [re.fullmatch(r"checkpoint-(\d+)\.index", name) for name in names]
        return sorted(int(match[1]) for match in matches if match)

    def newest(self) -> SavedState | None:
        """Returns the newest readable checkpoint, or None if there is none. Warns of unreadable ones.

        Raises:
            ValueError: there are checkpoints, but none can be read.
        """
        failures = []
        numbers = self.numbers()
        for number in reversed(numbers):
            try:
                saved = self.open(number)
            except ValueError as error:
                logging.warning("%s; falling back to the checkpoint before it", error)
                failures.append(str(error))
                continue
            self._rejected = {other for other in numbers if other > number}
            return saved
        if failures:
            raise ValueError(
                f"folder={os.fspath(self.folder)!r} has {number_of(len(failures), 'checkpoint')}, but none can be read "
                f"({'; '.join(failures)}); name another folder, or empty this one to start anew"
            )
        return None

    def open(self, number: int) -> SavedState:
        """Returns the checkpoint with a number. Raises a `ValueError` if it cannot be read."""
        return SavedState(self._path(number), number)

    def wait_for(self, number: int, seconds: float) -> SavedState:
        """Waits for a checkpoint from another machine, which a shared folder may show late.

        Raises:
            ValueError: the checkpoint cannot be read within `seconds`.
        """
        deadline = time.monotonic() + seconds
        while True:
            try:
                return self.open(number)
            except ValueError as error:
                if time.monotonic() > deadline:
                    raise ValueError(
                        f"{error}; the chief could read it: this worker waited {seconds:g} s for it to appear. "
                        "The folder must be on storage that all workers share"
                    ) from None
            look_again(self.folder)

    def prepare(self) -> None:
        """Makes the folder, and removes the incomplete files of a process that was killed while it wrote.

        Raises:
            ValueError: the folder cannot be made or written to.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            if not os.access(self.folder, os.W_OK | os.X_OK):
                raise PermissionError(None, "Permission denied")
            complete = {self._path(number).name for number in self.numbers()}
            for file in self.folder.glob("checkpoint-*"):
                match = re.fullmatch(r"(checkpoint-\d+)\.(index|data-\d+-of-\d+)(\.tempstate\d+)?", file.name)
                if match and (match[1] not in complete or match[3]):
                    file.unlink(missing_ok=True)
        except OSError as error:
            raise ValueError(f"folder={os.fspath(self.folder)!r} cannot be written: {error.strerror}") from None

    def write(self, facts: dict[str, Any], tensors: Mapping[str, tf.Tensor | np.ndarray]) -> int:
        """Writes one more checkpoint, and then removes the oldest ones.

        Returns:
            The number of the new checkpoint.

        Raises:
            OSError, tf.errors.OpError: the checkpoint could not be written; the older ones are unchanged.
            ValueError, TypeError: the folder cannot be listed, or a fact cannot be written as JSON.
        """
        number = max([0, *self.numbers()]) + 1
        values = {FACTS: json.dumps({"format": FORMAT, **facts}, default=_plain), **tensors}
        try:
            with tf.device("CPU:0"):
                tf.raw_ops.SaveV2(
                    prefix=os.fspath(self._path(number)),
                    tensor_names=list(values),
                    shape_and_slices=[""] * len(values),
                    tensors=[tf.convert_to_tensor(value) for value in values.values()],
                )
        except Exception:
            self._remove(number)
            raise
        # An unreadable checkpoint would become the newest again if this one were lost.
        numbers = [n for n in self.numbers() if n not in self._rejected]
        for old in [*self._rejected, *numbers[: -self._keep]]:
            self._remove(old)
        self._rejected = set()
        return number

    def _path(self, number: int) -> Path:
        return self.folder / f"checkpoint-{number}"

    def _remove(self, number: int) -> None:
        path = self._path(number)
        # Files without an index do not count as a checkpoint.
        for file in (path.with_name(f"{path.name}.index"), *self.folder.glob(f"{path.name}.*")):
            try:
                file.unlink(missing_ok=True)
            except OSError as error:
                logging.warning("%s cannot be removed: %s", file, error.strerror)


def _damaged_file(path: Path) -> str:
    """Returns the ending of the damaged file, as far as it can be found."""
    if not os.path.exists(f"{path}.index"):
        return ".index"
    try:
        tf.train.load_checkpoint(os.fspath(path)).get_variable_to_shape_map()
    except Exception:
        return ".index"
    return DATA


def _plain(value):
    """Converts NumPy's numbers and arrays to Python's."""
    if isinstance(value, (np.generic, np.ndarray)):
        return value.tolist()
    raise TypeError(f"{type(value).__name__} cannot be saved as JSON")
