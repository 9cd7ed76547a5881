"""The files of one pass of examples through the frozen part of a network, read by index."""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf

from polynet_keras.basics.files import written_whole

CHUNK = 32
"""Examples in a file: so much is lost at most when a process is killed, and so far workers are apart at most."""


class FeatureFiles:
    """Features, labels, and whether the image could be read, of so many examples in so many files.

    A file is written whole or not at all. A set is whole when all its files are there, whoever wrote them, and any
    number of workers reads it.

    Args:
        folder: of the files, which need not be there yet.
        count: number of examples.
        shape: of an example's features.
        dtype: of the features, as Keras calls it.

    Attributes:
        folder: of the files.
        count: number of examples.
        dtype: NumPy's, of the features.
    """

    def __init__(self, folder: Path, count: int, shape: Sequence[int], dtype: str):
        self.folder = folder
        self.count = count
        self.dtype = np.dtype(tf.as_dtype(dtype).as_numpy_dtype)
        stored = np.dtype("<u2") if dtype == "bfloat16" else self.dtype  # NumPy itself has no bfloat16
        self._row = np.dtype([("features", stored, tuple(shape)), ("label", "<i8"), ("readable", "?")])

    @property
    def bytes(self) -> int:
        """That all files take."""
        return self.count * self._row.itemsize

    @property
    def shape(self) -> tuple[int, ...]:
        """Of an example's features."""
        return self._row["features"].shape

    @property
    def chunks(self) -> int:
        """Number of files."""
        return math.ceil(self.count / CHUNK)

    def examples_of(self, chunk: int) -> np.ndarray:
        """The indices of a file's examples."""
        return np.arange(chunk * CHUNK, min((chunk + 1) * CHUNK, self.count))

    def missing(self) -> list[int]:
        """The files that are not there, or are not whole: a disk that lost power may have cut one off."""
        return [chunk for chunk in range(self.chunks) if not self._is_whole(chunk)]

    def write(self, chunk: int, features: np.ndarray, labels: np.ndarray, readable: np.ndarray) -> None:
        """Writes a file.

        Raises:
            OSError: it cannot be written.
        """
        rows = np.empty(len(labels), self._row)
        rows["features"] = features.astype(self.dtype, copy=False).view(self._row["features"].base)
        rows["label"], rows["readable"] = labels, readable
        with written_whole(self._path(chunk)) as partial:
            np.save(partial, rows)

    def facts(self) -> tuple[np.ndarray, np.ndarray]:
        """Of all examples: labels, int64 (count,), and whether their images could be read, bool (count,)."""
        labels, readable = np.empty(self.count, "int64"), np.empty(self.count, bool)
        for chunk in range(self.chunks):  # a system maps only so many files at once
            rows, here = self._rows(chunk), self.examples_of(chunk)
            labels[here], readable[here] = rows["label"], rows["readable"]
        return labels, readable

    def features(self, indices: np.ndarray) -> np.ndarray:
        """The features of some examples, in this order: array (len(indices), *shape)."""
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
            raise OSError(f"{self._path(chunk)} is gone, or was cut off: it was there when the training began")
        return rows

    def _opened(self, chunk: int) -> np.ndarray | None:
        """A file's rows, which stay on disk; `None` where they are not there, or not whole.

        Raises:
            OSError: the file is there, and cannot be read.
        """
        try:
            rows = np.load(self._path(chunk), mmap_mode="r")
        except (FileNotFoundError, ValueError, EOFError):
            return None
        expected = (len(self.examples_of(chunk)),)
        return rows if rows.dtype == self._row and rows.shape == expected else None
