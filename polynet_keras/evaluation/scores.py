"""What a model said of a dataset, crop by crop, as a value that is saved: pooling and mixing need no forward pass."""

import dataclasses
import json
import os
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from polynet_keras.basics.files import written_whole
from polynet_keras.basics.names import number_of, size_text
from polynet_keras.data.protocol import Preprocessing


@dataclass(frozen=True)
class Scores:
    """The logits of one model for all evaluated images of a dataset.

    Attributes:
        logits: float32 array (images, crops, classes).
        labels: int64 array (images,).
        indices: int64 array (images,), ascending: of the images in the dataset.
        class_names: by label.
        model: what to call the model.
        weights_hash: of the model's weights; see `identity.weights_hash`.
        dataset: what to call the dataset.
        fingerprint: of the dataset, hexadecimal.
        preprocessing: the protocol of each crop.
        seconds: that all images take; see `Result`.
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

    def save(self, path: str | os.PathLike) -> None:
        """Writes an `.npz` file, whole or not at all."""
        about = {
            field.name: getattr(self, field.name)
            for field in dataclasses.fields(self)
            if field.name not in ("logits", "labels", "indices", "preprocessing")
        }
        about["preprocessing"] = dataclasses.asdict(self.preprocessing)
        with written_whole(Path(path)) as partial, open(partial, "wb") as file:
            np.savez(file, logits=self.logits, labels=self.labels, indices=self.indices, about=json.dumps(about))

    @classmethod
    def load(cls, path: str | os.PathLike) -> "Scores":
        """Reads what `save` wrote; nothing is unpickled.

        Raises:
            ValueError: the file cannot be read or holds no scores; the message names it.
        """
        try:
            with np.load(path, allow_pickle=False) as arrays:
                about = json.loads(str(arrays["about"]))
                preprocessing = Preprocessing(**about.pop("preprocessing"))
                parts = {name: arrays[name] for name in ("logits", "labels", "indices")}
                return cls(**parts, preprocessing=preprocessing, **about)
        except FileNotFoundError:
            raise ValueError(f"{os.fspath(path)}: no such file; `polynet evaluate --scores FILE` writes one") from None
        except (OSError, ValueError, KeyError, TypeError, AttributeError, EOFError, zipfile.BadZipFile) as error:
            raise ValueError(f"{os.fspath(path)}: not a file of scores: {error}") from None
