"""The files of one pass of examples through a network's frozen part, with access by index."""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf

from polynet_keras.basics.files import written_whole

CHUNK = 32
"""Examples per file. A killed process loses at most one file, and workers are at most one file apart."""


class FeatureFiles:
    """Features, labels and readability of a number of examples, in a number of files.

    A file is written completely or not at all. A set is complete when all its files exist, whoever wrote them. Any
    number of workers can read it.

    Args:
        folder: folder of the files, which need not exist yet.
        count: number of examples.
        shape: shape of an example's features.
        dtype: Keras dtype of the features.

    Attributes:
        folder: folder of the files.
        count: number of examples.
        dtype: NumPy dtype of the features.
    """

    def __init__(self, folder: Path, count: int, shape: Sequence[int], dtype: str):
        self.folder = folder
        self.count = count
        self.dtype = np.dtype(tf.as_dtype(dtype).as_numpy_dtype)
        stored = np.dtype("<u2") if dtype == "bfloat16" else self.dtype  # NumPy itself has no bfloat16
        self._row = np.dtype([("features", stored, tuple(shape)), ("label", "<i8"), ("readable", "?")])

    @property
    def bytes(self) -> int:
        """Size of all files together."""
        return self.count * self._row.itemsize

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of an example's features."""
        return self._row["features"].shape

    @property
    def chunks(self) -> int:
        """Number of files."""
        return math.ceil(self.count / CHUNK)

    def examples_of(self, chunk: int) -> np.ndarray:
        """Returns the indices of a file's examples."""
        return np.arange(chunk * CHUNK, min((chunk + 1) * CHUNK, self.count))

    def missing(self) -> list[int]:
        """Returns the files that are missing or incomplete: a power failure may truncate a file."""
        return [chunk for chunk in range(self.chunks) if not self._is_whole(chunk)]

    def write(self, chunk: int, features: np.ndarray, labels: np.ndarray, readable: np.ndarray) -> None:
        """Writes a file.

        Raises:
            OSError: the file cannot be written.
        """
        rows = np.empty(len(labels), self._row)
        rows["features"] = features.astype(self.dtype, copy=False).view(self._row["features"].base)
        rows["label"], rows["readable"] = labels, readable
        with written_whole(self._path(chunk)) as partial:
            np.save(partial, rows)

    def facts(self) -> tuple[np.ndarray, np.ndarray]:
        """Returns labels, int64 (count,), and readability, bool (count,), of all examples."""
        labels, readable = np.empty(self.count, "int64"), np.empty(self.count, bool)
        for chunk in range(self.chunks):  # a system maps only so many files at once
            rows, here = self._rows(chunk), self.examples_of(chunk)
            labels[here], readable[here] = rows["label"], rows["readable"]
        return labels, readable

    def features(self, indices: np.ndarray) -> np.ndarray:
        """Returns the features of some examples, in the order of `indices`: array (len(indices), *shape)."""
        found = np.empty((len(indices), *self.shape), self.dtype)
        places = indices // CHUNK
        for chunk in np.unique(places):
            here = places == chunk
            found[here] = self._rows(chunk)["features"][indices[here] % CHUNK].view(self.dtype)
        return found

    def _path(self, chunk: int) -> Path:
        return self.folder / f"{chunk:05d}.npy"

    def _is_whole(self, chunk: int) -> bool:
        try:
            return self._opened(chunk) is not None
        except OSError:
            return False

    def _rows(self, chunk: int) -> np.ndarray:
        try:
            rows = self._opened(chunk)
        except OSError as error:
            raise OSError(f"{self._path(chunk)} cannot be read: {error.strerror or error}") from None
        if rows is None:
            raise OSError(f"{self._path(chunk)} is gone or incomplete: it was complete when the training began")
        return rows

    def _opened(self, chunk: int) -> np.ndarray | None:
        """Returns a file's rows, memory-mapped; `None` if the file is missing or incomplete.

        Raises:
            OSError: the file exists, but cannot be read.
        """
        try:
            rows = np.load(self._path(chunk), mmap_mode="r")
        except (FileNotFoundError, ValueError, EOFError):
            return None
        expected = (len(self.examples_of(chunk)),)
        return rows if rows.dtype == self._row and rows.shape == expected else None
