"""Embeddings of images as a value that can be saved: a search for similar images needs no forward pass."""

import os
from dataclasses import dataclass

import numpy as np

from polynet_keras.basics.names import number_of, size_text
from polynet_keras.data.protocol import Preprocessing
from polynet_keras.evaluation.array_files import errors_of_file, read_arrays, write_arrays

ARRAYS = ("paths", "embeddings")


@dataclass(frozen=True, eq=False)
class Features:
    """A network's features of image files, before the classifier.

    Attributes:
        paths: str array (images,): paths of the readable files, in their given order.
        embeddings: float32 array (images, channels).
        stage: the layer, or the part of a PolyNet, with this output.
        pooling: pooling of a map to one number per channel: `"avg"` or `"max"`; `""` if the output was not a map.
        class_names: the model's class names, by output index.
        model: name of the model.
        weights_hash: hash of its weights; see `identity.weights_hash`.
        preprocessing: the protocol.

    Examples:
        >>> extract_features(trained, photos).save(folder / "photos.npz")
        >>> features = Features.load(folder / "photos.npz")
        >>> features.embeddings.shape, features.model
        ((10, 3), 'pets')
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

    def __repr__(self) -> str:
        images, channels = self.embeddings.shape
        return (
            f"Features({number_of(images, 'image')}, {channels:,} channels, stage={self.stage!r}, model={self.model!r})"
        )

    def save(self, path: str | os.PathLike) -> None:
        """Writes an `.npz` file, completely or not at all: `paths`, `embeddings`, and all else in `about`, as JSON."""
        write_arrays(path, self, ARRAYS)

    @classmethod
    def load(cls, path: str | os.PathLike) -> "Features":
        """Reads a file of `save`; it never unpickles.

        Raises:
            ValueError: the file cannot be read or holds no features; the message names the file.
        """
        with errors_of_file(path, "features", "polynet features"):
            fields = read_arrays(path, ARRAYS)
            return cls(preprocessing=Preprocessing(**fields.pop("preprocessing")), **fields)
