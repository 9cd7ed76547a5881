"""A few held-out images as files, to predict with after a run."""

import os
from pathlib import Path

import numpy as np
from absl import logging

from polynet_keras.basics.files import written_whole
from polynet_keras.data.examples import Source

SAMPLES = 10
NAME_BYTES = 100
"""Of an image's and of a class's name, in that of a sample: file systems take 255 bytes in all."""


def held_out_samples(source: Source, folder: Path, skipped: set[int]) -> tuple[str, ...]:
    """Held-out images as files: the source's own, or written to the folder where it has none.

    The run is done by now: what cannot be read or written is left out, and nothing is raised.

    Args:
        source: of the run.
        folder: where files go, if the source has none; it is made then.
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
            if held_out.are_files:
                files.append(held_out.name_of(index))
            else:
                files.append(
                    _written(image, source.class_names[held_out.label(index)], held_out.name_of(index), folder)
                )
        except (ValueError, OSError) as error:
            logging.warning("no sample is kept of a held-out image: %s", error)
    return tuple(files)


def _written(image: np.ndarray, class_name: str, name: str, folder: Path) -> str:
    from PIL import Image

    folder.mkdir(exist_ok=True)  # a run may be cut off here, and go on
    file = folder / f"{_short(name)}-is-{_short(class_name)}.png"
    with written_whole(file) as partial:
        Image.fromarray(image.squeeze(-1) if image.shape[-1] == 1 else image).save(partial)
    return os.fspath(file)


def _short(name: str) -> str:
    return name.replace("/", "-").encode(errors="replace")[:NAME_BYTES].decode(errors="ignore")
