"""A model's scores for a dataset, crop by crop, as a value that can be saved: pooling needs no forward pass."""

import os
from dataclasses import dataclass

import numpy as np

from polynet_keras.basics.names import number_of, size_text
from polynet_keras.data.protocol import Preprocessing
from polynet_keras.evaluation.array_files import errors_of_file, read_arrays, write_arrays

ARRAYS = ("logits", "labels", "indices")


@dataclass(frozen=True)
class Scores:
    """The logits of one model for all evaluated images of a dataset.

    Attributes:
        logits: float32 array (images, crops, classes).
        labels: int64 array (images,).
        indices: int64 array (images,), ascending: indices of the images in the dataset.
        class_names: names by label.
        model: name of the model.
        weights_hash: hash of the model's weights; see `identity.weights_hash`.
        dataset: name of the dataset.
        fingerprint: fingerprint of the dataset, hexadecimal.
        preprocessing: the protocol of each crop.
        seconds: time for all images; see `Result`.
    """

    logits: np.ndarray
    labels: np.ndarray
    indices: np.ndarray
    class_names: tuple[str, ...]
    model: str
    weights_hash: str
    dataset: str
    fingerprint: str
    preprocessing: Preprocessing
    seconds: float

    def __post_init__(self):
        object.__setattr__(self, "class_names", tuple(self.class_names))
        images = len(self.labels)
        if self.logits.ndim != 3 or self.logits.shape[0] != images or self.logits.shape[2] != len(self.class_names):
            raise ValueError(
                f"logits of {size_text(self.logits.shape)} must be (images, crops, classes) of "
                f"{number_of(images, 'label')} and "
                f"{number_of(len(self.class_names), 'class', 'classes')}"
            )
        if len(self.indices) != images or (np.diff(self.indices) <= 0).any():
            raise ValueError("indices must be ascending, one for each label")

    def __repr__(self) -> str:
        images, crops, classes = self.logits.shape
        return (
            f"Scores({number_of(images, 'image')}, crops of each: {crops}, {number_of(classes, 'class', 'classes')}, "
            f"model={self.model!r}, dataset={self.dataset!r})"
        )

    def save(self, path: str | os.PathLike) -> None:
        """Writes an `.npz` file, completely or not at all."""
        write_arrays(path, self, ARRAYS)

    @classmethod
    def load(cls, path: str | os.PathLike) -> "Scores":
        """Reads a file of `save`; it never unpickles.

        Raises:
            ValueError: the file cannot be read or holds no scores; the message names the file.
        """
        with errors_of_file(path, "scores", "polynet evaluate --scores FILE"):
            fields = read_arrays(path, ARRAYS)
            return cls(preprocessing=Preprocessing(**fields.pop("preprocessing")), **fields)
