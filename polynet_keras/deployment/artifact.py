"""The folder that an export leaves: the artifact where model servers look for it, and its card."""

import dataclasses
import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from polynet_keras.basics.files import file_hash
from polynet_keras.basics.json_fields import Fields, fields_of, is_plain
from polynet_keras.data.preprocessing import Preprocessing

CARD_FILE = "card.json"
MAX_FACTS = 100
"""About a calibration."""
SHA256 = re.compile("[0-9a-f]{64}")
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

PRECISIONS = {
    "saved_model": ("float32",),
    "onnx": ("float32",),
    "openvino": ("float32", "float16", "int8"),
    "litert": ("float32", "dynamic"),
    "torch": ("float32",),
}
"""What each format can be written in, the default first. `"dynamic"` are weights in int8, activations in float."""


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
        precision: of the weights and, in int8, of what is computed; see `PRECISIONS`.
        name: of the run folder or the checkpoint that was exported.
        class_names: by index of the output.
        preprocessing: from an image to the float input.
        source_hash: SHA-256 of the Keras model's weights, in hexadecimal digits.
        structure: the residual units, in the structure notation.
        comparison: with the Keras model.
        calibration: of int8: the data, how many images, and the operations that were left in float.
        versions: of the packages that wrote it, by name.
        size: bytes of all files of the artifact.
        files: SHA-256 of each file of the artifact, in hexadecimal digits, by its path in the folder; none in cards of
            version 0.1.

    Raises:
        ValueError: a name that UTF-8 cannot write, or hashes that are none.
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
    files: dict[str, str] = dataclasses.field(default_factory=dict)

    def __post_init__(self):
        for name in (self.name, *self.class_names):
            try:
                name.encode()
            except (AttributeError, UnicodeError):  # no text, or a part of a character, which no answer can have
                raise ValueError(f"the name {name!r} is no text that UTF-8 can write; rename it") from None
        if not isinstance(self.files, dict):
            raise ValueError(f"files={self.files!r} must be a hash for each path")

    def save(self, folder: str | os.PathLike) -> None:
        Path(folder, CARD_FILE).write_text(json.dumps(dataclasses.asdict(self), indent=2) + "\n")

    @classmethod
    def load(cls, folder: str | os.PathLike) -> "ExportCard":
        """Reads the card of `folder`.

        Raises:
            ValueError: there is none, or it is not one; the message names the file, and the field that is wrong.
        """
        path = Path(folder, CARD_FILE)
        missing = "no card of an exported model can be read: {}; `polynet export` writes one"
        with fields_of(path, missing, "not the card of an exported model") as fields:
            format = fields.text("format")
            if format not in ARTIFACTS:
                raise fields.error("format", format, f"one of {', '.join(ARTIFACTS)}")
            precision = fields.text("precision")
            if precision not in PRECISIONS[format]:
                raise fields.error("precision", precision, f"one of {', '.join(PRECISIONS[format])}")
            return cls(
                format=format,
                precision=precision,
                name=fields.text("name"),
                class_names=fields.class_names("class_names"),
                preprocessing=Preprocessing.from_fields(fields.object("preprocessing")),
                source_hash=_hash(fields),
                structure=fields.text("structure"),
                comparison=_comparison(fields),
                calibration=_calibration(fields),
                versions=fields.texts_by_name("versions", most=100),
                size=fields.whole("size"),
                files=_files(fields),
            )


def _comparison(fields: Fields) -> Comparison:
    values = Fields(fields.take("comparison"), "comparison")
    images, largest = values.whole("images"), values.number("max_difference", most=1e9)
    comparison = Comparison(values.text("data"), images, largest, values.number("top1_agreement", most=1.0))
    values.end()
    return comparison


def _calibration(fields: Fields) -> dict[str, Any] | None:
    found = fields.take("calibration")
    if found is not None and not (isinstance(found, dict) and len(found) <= MAX_FACTS and is_plain(found)):
        raise fields.error("calibration", found, f"null, or an object of at most {MAX_FACTS} facts")
    return found


def _hash(fields: Fields) -> str:
    found = fields.text("source_hash")
    if not SHA256.fullmatch(found):
        raise fields.error("source_hash", found, "64 hexadecimal digits")
    return found


def _files(fields: Fields) -> dict[str, str]:
    files = fields.texts_by_name("files") if "files" in fields else {}
    for name, digest in files.items():
        if not SHA256.fullmatch(digest):
            raise fields.error(f"files[{name!r}]", digest, "64 hexadecimal digits")
    return files


def artifact_path(folder: str | os.PathLike, format: str) -> Path:
    """The file by which the artifact of an export's folder is loaded."""
    return Path(folder, VERSION_FOLDER, ARTIFACTS[format])


def file_hashes(folder: str | os.PathLike) -> dict[str, str]:
    """SHA-256 of each file beside the card and below, by its path in the folder.

    Raises:
        ValueError: a link or a device is among them.
    """
    found = {}
    for path in sorted(Path(folder).rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_symlink() or not (path.is_file() or path.is_dir()):
            raise ValueError(f"{path}: is no file of its own, which an export consists of; export it again")
        if name != CARD_FILE and path.is_file():
            found[name] = file_hash(path)
    return found


def verify_files(folder: str | os.PathLike, card: ExportCard) -> None:
    """Refuses an export whose files are not those that its card names.

    It finds damage and mistakes. Who can write to the folder can write the card too.

    Raises:
        ValueError: a file differs, is missing, or is not in the card; or the card names none.
    """
    if not card.files:
        raise ValueError(
            f"{Path(folder, CARD_FILE)}: names no hashes of its files, so nothing can be verified; export it again"
        )
    found = file_hashes(folder)
    for name in sorted({*found, *card.files}):
        if found.get(name) != card.files.get(name):
            is_in = name in found, name in card.files
            what = {(True, True): "differs from", (False, True): "is missing, but in", (True, False): "is not in"}[
                is_in
            ]
            raise ValueError(f"{Path(folder, name)}: {what} what {CARD_FILE} says was exported; export it again")
