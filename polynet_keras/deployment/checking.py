"""Checks of an export's arguments, before Keras is imported and weights are fetched."""

import os
from pathlib import Path

from polynet_keras.basics.extras import require_extras
from polynet_keras.basics.names import shown
from polynet_keras.deployment.artifact import CARD_FILE, ExportCard, file_hashes
from polynet_keras.deployment.formats import FORMATS, format_of
from polynet_keras.deployment.formats.format import Format

CALIBRATED = "int8"


def check_export(
    folder: str | os.PathLike,
    format: str,
    precision: str | None,
    calibrated: bool,
    overwrite: bool,
    max_drop: float | None = None,
) -> tuple[Format, str]:
    """Returns the format and the precision of an export.

    Raises:
        ValueError: the export is impossible, for a reason that `export` lists.
    """
    chosen = format_of(format)
    precision = precision or next(iter(chosen.precisions))
    if precision not in chosen.precisions:
        raise ValueError(f"precision={precision!r} must be one of {', '.join(chosen.precisions)} for {chosen.name}")
    if precision == CALIBRATED and not calibrated:
        raise ValueError(f"precision={precision!r} needs calibration: the data whose images its ranges are read from")
    if calibrated and precision != CALIBRATED:
        raise ValueError(f"calibration is for precision={CALIBRATED!r} only; got precision={precision!r}")
    if max_drop is not None and not (precision == CALIBRATED and chosen.gives_back):
        able = " and ".join(format.name for format in FORMATS.values() if format.gives_back)
        raise ValueError(
            f"max_drop={max_drop:g} is for precision={CALIBRATED!r} of {able}; got {precision!r} of {chosen.name}"
        )
    path = Path(folder)  # removes a slash at the end
    if not path.name:
        raise ValueError(f"output={os.fspath(folder)!r} has no name of its own; name a new folder")
    check_place(path, overwrite)
    if not path.parent.is_dir() or not os.access(path.parent, os.W_OK):
        raise ValueError(f"{shown(folder)} is in a folder that does not exist or cannot be written; make it first")
    chosen.check_versions()
    require_extras(
        {
            "deploy": chosen.precisions[precision],
            "data": ("PIL", *(["scipy"] if precision == CALIBRATED else []), "sklearn"),
        }
    )
    return chosen, precision


def check_place(folder: Path, overwrite: bool) -> None:
    """Raises a `ValueError` unless `folder` does not exist, or is an export, without other files, to be overwritten."""
    if not os.path.lexists(folder):
        return
    if not overwrite:
        replaced = ", or replace the export that it holds with --overwrite" if (folder / CARD_FILE).is_file() else ""
        raise ValueError(f"output={os.fspath(folder)!r} already exists; name a new folder{replaced}")
    if folder.is_symlink():
        raise ValueError(f"{shown(folder)} is a link, which cannot be overwritten; name the folder that it leads to")
    if not (folder / CARD_FILE).is_file():
        raise ValueError(f"{shown(folder)} holds no export, and nothing else is overwritten; name a new folder")
    other = _other_than_exported(folder)
    if other is not None:
        raise ValueError(
            f"{shown(folder)} is not overwritten: {shown(other)} in it is not from `polynet export`; name a "
            "new folder, or remove this one yourself"
        )


def _other_than_exported(folder: Path) -> str | None:
    """Returns a file in an export's folder that is not the export's or was changed; ValueError if it is no export's."""
    exported = ExportCard.load(folder).files
    return next((name for name, digest in file_hashes(folder).items() if exported.get(name) != digest), None)
