"""The folder that an export leaves: the artifact where model servers look for it, and its card."""

import dataclasses
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from polynet_keras.data.preprocessing import Preprocessing

CARD_FILE = "card.json"
VERSION_FOLDER = "1"
"""TensorFlow Serving and OpenVINO Model Server load the folder of the highest number."""

ARTIFACTS = {
    "saved_model": "saved_model.pb",
    "onnx": "model.onnx",
    "openvino": "model.xml",
    "litert": "model.tflite",
    "torch": "model.pt2",
}
"""The file by which each format's artifact is loaded, in `VERSION_FOLDER`."""


@dataclass(frozen=True)
class Comparison:
    """An artifact in its own runtime beside the Keras model that it came from.

    Attributes:
        data: what it was run on.
        images: how many of it.
        max_difference: the largest absolute difference of a probability.
        top1_agreement: the share of the images whose best class is the same, from 0 to 1.
    """

    data: str
    images: int
    max_difference: float
    top1_agreement: float


@dataclass(frozen=True)
class ExportCard:
    """What an exported model is, beside it as `card.json`.

    Attributes:
        format: a key of `ARTIFACTS`.
        precision: of the weights and, in int8, of what is computed; see `export.PRECISIONS`.
        name: of the run folder or the checkpoint that was exported.
        class_names: by index of the output.
        preprocessing: from an image to the float input.
        source_hash: SHA-256 of the Keras model's weights, in hexadecimal digits.
        structure: the residual units, in the structure notation.
        comparison: with the Keras model.
        calibration: of int8: the data, how many images, and the operations that were left in float.
        versions: of the packages that wrote it, by name.
        size: bytes of all files of the artifact.

    Raises:
        ValueError: a name that UTF-8 cannot write.
    """

    format: str
    precision: str
    name: str
    class_names: tuple[str, ...]
    preprocessing: Preprocessing
    source_hash: str
    structure: str
    comparison: Comparison
    calibration: dict[str, Any] | None
    versions: dict[str, str]
    size: int

    def __post_init__(self):
        for name in (self.name, *self.class_names):
            try:
                name.encode()
            except (AttributeError, UnicodeError):  # no text, or a part of a character, which no answer can have
                raise ValueError(f"the name {name!r} is no text that UTF-8 can write; rename it") from None

    def save(self, folder: str | os.PathLike) -> None:
        Path(folder, CARD_FILE).write_text(json.dumps(dataclasses.asdict(self), indent=2) + "\n")

    @classmethod
    def load(cls, folder: str | os.PathLike) -> "ExportCard":
        """Reads the card of `folder`.

        Raises:
            ValueError: there is none, or it is not one; the message names the file.
        """
        path = Path(folder, CARD_FILE)
        try:
            values = json.loads(path.read_text())
            preprocessing = Preprocessing(**values.pop("preprocessing"))
            comparison = Comparison(**values.pop("comparison"))
            class_names = tuple(values.pop("class_names"))
            card = cls(class_names=class_names, preprocessing=preprocessing, comparison=comparison, **values)
        except OSError as error:
            raise ValueError(
                f"{path}: no card of an exported model can be read: {error.strerror}; `polynet export` writes one"
            ) from None
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise ValueError(f"{path}: not the card of an exported model: {error}") from None
        if card.format not in ARTIFACTS:
            raise ValueError(f"{path}: format={card.format!r} must be one of {', '.join(ARTIFACTS)}")
        return card


def artifact_path(folder: str | os.PathLike, format: str) -> Path:
    """The file by which the artifact of an export's folder is loaded."""
    return Path(folder, VERSION_FOLDER, ARTIFACTS[format])
