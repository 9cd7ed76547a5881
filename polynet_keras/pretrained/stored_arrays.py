"""The arrays of a checkpoint file of any publisher, before they are read."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from polynet_keras.pretrained import name_maps

ACCEPTED = (
    "a .weights.h5 or .keras file of this package, a tf2cv HDF5, a state dict of pretrainedmodels or pytorchcv, or a "
    "zip archive of one of them"
)


class Format(StrEnum):
    """The publisher of a checkpoint, which decides its names of layers."""

    KERAS = "polynet_keras"
    TF2CV = "tf2cv"
    CADENE = "pretrainedmodels"
    PYTORCHCV = "pytorchcv"


TABLES = {
    Format.TF2CV: name_maps.tf2cv,
    Format.CADENE: name_maps.cadene,
    Format.PYTORCHCV: name_maps.pytorchcv,
}


@dataclass(frozen=True)
class StoredArray:
    """An array that is in a file, and is not read yet.

    Attributes:
        shape: in Keras's layout.
        dtype: of what `read` returns.
        read: its values. Raises a `ValueError` that names the file, if that is damaged.
    """

    shape: tuple[int, ...]
    dtype: np.dtype
    read: Callable[[], np.ndarray]

    @property
    def size(self) -> int:
        return int(np.prod(self.shape, dtype=object))


@dataclass(frozen=True)
class Checkpoint:
    """The arrays of a checkpoint file.

    Attributes:
        format: who wrote it.
        arrays: by the source's own key, in Keras's layout (a convolution's kernel is height, width, in, out).
            Of `Format.KERAS` the key is `layer/number of the variable`.
    """

    format: Format
    arrays: Mapping[str, np.ndarray | StoredArray]


def values_of(array: np.ndarray | StoredArray) -> np.ndarray:
    """The values of an array, read if they were not yet."""
    return array.read() if isinstance(array, StoredArray) else array


def keras_layout(array: np.ndarray) -> np.ndarray:
    """PyTorch has the output channels first, Keras last."""
    return np.transpose(array, (2, 3, 1, 0)) if array.ndim == 4 else array.T
