"""Embeddings of images as a value that is saved: what is near to what needs no forward pass."""

import os
from dataclasses import dataclass

import numpy as np

from polynet_keras.basics.names import size_text
from polynet_keras.data.protocol import Preprocessing
from polynet_keras.evaluation.array_files import errors_of_file, read_arrays, write_arrays

ARRAYS = ("paths", "embeddings")


@dataclass(frozen=True, eq=False)
class Features:
    """What a network makes of image files before it names a class.

    Attributes:
        paths: str array (images,): of the files that could be read, in the order in which they were named.
        embeddings: float32 array (images, channels).
        stage: the layer, or the part of a PolyNet, whose output they are.
        pooling: how a map became one number for each channel: `"avg"` or `"max"`; `""` where it was none.
        class_names: the model's, by its output.
        model: what to call the model.
        weights_hash: of its weights; see `identity.weights_hash`.
        preprocessing: the protocol.
    """

    paths: np.ndarray
    embeddings: np.ndarray
    stage: str
    pooling: str
    class_names: tuple[str, ...]
    model: str
    weights_hash: str
    preprocessing: Preprocessing

    def __post_init__(self):
        object.__setattr__(self, "class_names", tuple(self.class_names))
        if self.embeddings.ndim != 2 or self.paths.shape != self.embeddings.shape[:1]:
            raise ValueError(
                f"embeddings of {size_text(self.embeddings.shape)} must be (images, channels), for each of "
                f"{size_text(self.paths.shape)} paths"
            )

    def save(self, path: str | os.PathLike) -> None:
        """Writes an `.npz` file, whole or not at all: `paths`, `embeddings`, and `about`, JSON with all else."""
        write_arrays(path, self, ARRAYS)

    @classmethod
    def load(cls, path: str | os.PathLike) -> "Features":
        """Reads what `save` wrote; nothing is unpickled.

        Raises:
            ValueError: the file cannot be read or holds no features; the message names it.
        """
        with errors_of_file(path, "features", "polynet features"):
            fields = read_arrays(path, ARRAYS)
            return cls(preprocessing=Preprocessing(**fields.pop("preprocessing")), **fields)
