"""A few held-out images as files, for predictions after a run."""

import os
from pathlib import Path

import numpy as np
from absl import logging

from polynet_keras.basics.files import written_whole
from polynet_keras.data.examples import Examples, Source
from polynet_keras.data.passed_over import IMAGE_SUFFIXES

SAMPLES = 10
NAME_BYTES = 100
"""Bytes of an image's and of a class's name in the name of a sample: file systems allow 255 in all."""


def held_out_samples(source: Source, folder: Path, skipped: set[int]) -> tuple[str, ...]:
    """Saves held-out images as files in a folder: copies of the source's files, or PNG if it has none.

    The run is already done: images that cannot be read or written are left out without an error.

    Args:
        source: source of the run.
        folder: the folder to write to; it is made if missing.
        skipped: indices of held-out images that could not be read.
    """
    held_out = source.held_out
    readable = np.setdiff1d(np.arange(len(held_out)), list(skipped))
    files: list[str] = []
    # Evenly spaced: sources list class by class.
    places = np.linspace(0, len(readable) - 1, min(SAMPLES, len(readable))).astype(int)
    for index in map(int, readable[places]):
        try:
            image = held_out.image(index)
            class_name = source.class_names[held_out.label(index)]
            folder.mkdir(exist_ok=True)  # a run may be interrupted here, and resume
            if held_out.are_files:
                files.append(_copied(held_out, index, class_name, folder, files))
            else:
                files.append(_written(image, class_name, held_out.name_of(index), folder))
        except (ValueError, OSError) as error:
            logging.warning("a held-out image was not saved as a sample: %s", error)
    return tuple(files)


def _copied(held_out: Examples, index: int, class_name: str, folder: Path, taken: list[str]) -> str:
    name = Path(held_out.name_of(index))
    suffix = name.suffix if name.suffix.lower() in IMAGE_SUFFIXES else ""
    file = folder / f"{_short(name.stem)}-is-{_short(class_name)}{suffix}"
    if os.fspath(file) in taken:  # from two folders below one class's folder
        file = folder / f"{_short(name.stem)}-{index}-is-{_short(class_name)}{suffix}"
    with written_whole(file) as partial:
        partial.write_bytes(held_out.encoded(index))
    return os.fspath(file)


def _written(image: np.ndarray, class_name: str, name: str, folder: Path) -> str:
    from PIL import Image

    file = folder / f"{_short(name)}-is-{_short(class_name)}.png"
    with written_whole(file) as partial:
        Image.fromarray(image.squeeze(-1) if image.shape[-1] == 1 else image).save(partial)
    return os.fspath(file)


def _short(name: str) -> str:
    return name.replace("/", "-").encode(errors="replace")[:NAME_BYTES].decode(errors="ignore")
