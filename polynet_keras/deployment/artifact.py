"""The folder of an export: its artifact, in the layout of model servers, its card, and loading."""

import dataclasses
import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from polynet_keras.basics.extras import require_extra
from polynet_keras.basics.files import file_hash
from polynet_keras.basics.json_fields import Fields, fields_of, is_plain
from polynet_keras.basics.names import number_of, size_text
from polynet_keras.data.protocol import Preprocessing
from polynet_keras.deployment.comparison import Comparison
from polynet_keras.deployment.formats import FORMATS
from polynet_keras.deployment.formats.format import Runner
from polynet_keras.pretrained.model_source import EXPORT_CARD_FILE as CARD_FILE

MAX_FACTS = 100
"""Most fields of the facts about a calibration."""
SHA256 = re.compile("[0-9a-f]{64}")
VERSION_FOLDER = "1"
"""TensorFlow Serving and OpenVINO Model Server load the folder with the highest number."""
MAX_REASON = 300
"""Most characters of a runtime's own error in a message."""


@dataclass(frozen=True)
class ExportCard:
    """Description of an exported model, beside it as `card.json`.

    Attributes:
        format: a key of `FORMATS`.
        precision: precision of the weights and, in int8, of the computation.
        name: name of the exported run folder or checkpoint.
        class_names: names by index of the output.
        preprocessing: preprocessing from an image to the float input.
        source_hash: SHA-256 of the Keras model's weights, in hexadecimal digits.
        structure: the residual units, in the structure notation.
        comparison: comparison with the Keras model.
        calibration: for int8: the data, the number of images, the layers to keep in float, and, with a `max_drop`, its
            value and the layers that went back to float for it.
        versions: versions of the packages that wrote it, by name.
        size: bytes of all files of the artifact.
        files: SHA-256 of each file of the artifact, in hexadecimal digits, by its path in the folder; none in cards of
            version 0.1.

    Raises:
        ValueError: a name cannot be written in UTF-8, or hashes are invalid.

    Examples:
        >>> _ = export(trained, folder / "pets")
        >>> card = ExportCard.load(folder / "pets")
        >>> card.format, card.precision, card.class_names
        ('openvino', 'float32', ('cat', 'dog'))
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
            except (AttributeError, UnicodeError):  # not text, or a part of a character, which an answer cannot have
                raise ValueError(f"the name {name!r} is not text that UTF-8 can write; rename it") from None
        if not isinstance(self.files, dict):
            raise ValueError(f"files={self.files!r} must be a hash for each path")

    def save(self, folder: str | os.PathLike) -> None:
        Path(folder, CARD_FILE).write_text(json.dumps(dataclasses.asdict(self), indent=2) + "\n")

    @classmethod
    def load(cls, folder: str | os.PathLike) -> "ExportCard":
        """Reads the card of `folder`.

        Raises:
            ValueError: the card is missing or invalid; the message names the file and the wrong field.
        """
        path = Path(folder, CARD_FILE)
        missing = "no card of an exported model can be read: {}; `polynet export` writes one"
        with fields_of(path, missing, "not the card of an exported model") as fields:
            format = fields.text("format")
            if format not in FORMATS:
                raise fields.error("format", format, f"one of {', '.join(FORMATS)}")
            precision, precisions = fields.text("precision"), FORMATS[format].precisions
            if precision not in precisions:
                raise fields.error("precision", precision, f"one of {', '.join(precisions)}")
            return cls(
                format=format,
                precision=precision,
                name=fields.text("name"),
                class_names=fields.class_names("class_names"),
                preprocessing=Preprocessing.from_fields(fields.object("preprocessing")),
                source_hash=_hash(fields),
                structure=fields.text("structure"),
                comparison=Comparison.from_fields(fields.object("comparison")),
                calibration=_calibration(fields),
                versions=fields.texts_by_name("versions", most=100),
                size=fields.whole("size"),
                files=_files(fields),
            )


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
    """Returns the file that loads the artifact of an export's folder."""
    return Path(folder, VERSION_FOLDER, FORMATS[format].file)


def opened_export(folder: str | os.PathLike) -> tuple[ExportCard, Path]:
    """Returns the card of an export's folder, and the file that loads its artifact.

    Raises:
        ValueError: one of them is missing, or the card is invalid.
    """
    card = ExportCard.load(folder)
    path = artifact_path(folder, card.format)
    if not path.is_file():
        raise ValueError(f"{path}: no such file, which the card beside it describes; export the model again")
    return card, path


def file_hashes(folder: str | os.PathLike) -> dict[str, str]:
    """Returns the SHA-256 of each file beside the card and below, by its path in the folder.

    Raises:
        ValueError: a link or a device is among the files.
    """
    found = {}
    for path in sorted(Path(folder).rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_symlink() or not (path.is_file() or path.is_dir()):
            raise ValueError(f"{path}: is not a plain file, as the files of an export are; export it again")
        if name != CARD_FILE and path.is_file():
            found[name] = file_hash(path)
    return found


def verify_files(folder: str | os.PathLike, card: ExportCard) -> None:
    """Refuses an export whose files differ from those on its card.

    It finds damage and mistakes, not attacks: anyone who can write to the folder can also write the card.

    Raises:
        ValueError: a file differs, is missing, or is not on the card; or the card names no files.
    """
    if not card.files:
        raise ValueError(
            f"{Path(folder, CARD_FILE)}: names no hashes of its files, so nothing can be verified; export it again"
        )
    found = file_hashes(folder)
    for name in sorted({*found, *card.files}):
        if found.get(name) != card.files.get(name):
            what = "is not in" if name not in card.files else "differs from" if name in found else "is missing, but in"
            raise ValueError(f"{Path(folder, name)}: {what} what {CARD_FILE} says was exported; export it again")


@dataclass(frozen=True)
class ExportedModel:
    """A loaded export: call it with preprocessed images.

    Attributes:
        card: its card.
        run: function from preprocessed images, float32 (batch, image_size, image_size, channels), to probabilities,
            float32 (batch, classes). Any number of threads may call it at once.
    """

    card: ExportCard
    run: Runner


def load_exported(folder: str | os.PathLike, threads: int | None = None) -> ExportedModel:
    """Loads an export of `polynet export` with the runtime of its format.

    An export is a program, and loading it may run it: load only exports that you made or trust.

    Args:
        folder: folder with the card and the artifact.
        threads: most threads per inference; by default the runtime decides. LiteRT uses one by default. TensorFlow
            accepts the number only before it runs anything.

    Raises:
        ValueError: there is no such export, it cannot be loaded, or its runtime is not installed.

    Examples:
        >>> _ = export(trained, folder / "pets")
        >>> exported = load_exported(folder / "pets")
        >>> exported.run(np.zeros((1, 16, 16, 3), "float32")).shape
        (1, 2)
    """
    card, path = opened_export(folder)
    side, channels = card.preprocessing.image_size, card.preprocessing.channels
    run = load_artifact(path, card.format, threads)

    def checked(images: np.ndarray) -> np.ndarray:
        if images.dtype != np.float32 or images.ndim != 4 or images.shape[1:] != (side, side, channels):
            raise ValueError(
                f"images of {images.dtype}, {size_text(images.shape)}, must be float32 (batch, {side}, {side}, "
                f"{channels}), "
                "prepared by the card's preprocessing"
            )
        found = run(images)
        if found.shape != (len(images), len(card.class_names)):
            raise ValueError(
                f"{os.fspath(folder)}: the model gives {size_text(found.shape)} numbers for "
                f"{number_of(len(images), 'image')}, and its card "
                f"names {number_of(len(card.class_names), 'class', 'classes')}; export it again"
            )
        return found

    return ExportedModel(card, checked)


def load_artifact(path: Path, format: str, threads: int | None = None) -> Runner:
    """Loads the artifact of a format; see `load_exported`."""
    require_extra("deploy", *FORMATS[format].runtime)
    try:
        return FORMATS[format].load(path, threads)
    except Exception as error:  # each runtime has its own errors for a file of another format
        raise ValueError(f"{path}: cannot be loaded as {format}: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    """Returns an error as one line; OpenVINO's errors begin with places in its source code."""
    lines = [line.strip() for line in str(error).splitlines()]
    said = [line for line in lines if line and not line.startswith("Exception from")]
    return " ".join(said)[:MAX_REASON] or type(error).__name__
