"""Facts about photographs, found before a recipe is chosen: their number, their size, and whether they have colours."""

import os
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from polynet_keras.basics.news import without_logs
from polynet_keras.data.image_files import read_image, read_picture
from polynet_keras.data.listing import list_images
from polynet_keras.data.records.manifest import MANIFEST, load_manifest
from polynet_keras.data.splits import TRAINING, WHOLE, find_split, held_out_of

HEADERS, DECODED = 200, 20
"""Images whose size is read, and images among them whose colours are checked, until one has some. There is no time
limit, because all workers must find the same."""
COLOURS_SEEN = 256
"""Approximate number of rows or columns whose colours are checked; all pixels of a large photograph take gigabytes."""
COLOURED = 4.0
"""Mean difference of two channels above which an image has colours: a scanned grey image has a tint."""


@dataclass(frozen=True)
class PhotoFacts:
    """Facts about photographs before a run.

    Attributes:
        images: number of training images.
        imbalance: ratio of the largest class to the smallest among them; 1 if unknown.
        shorter_side: median of the shorter sides in pixels, of a sample; 0 if unknown.
        is_grey: whether no image of a sample has colours.
    """

    images: int
    imbalance: float
    shorter_side: int
    is_grey: bool


def photo_facts(data: str | os.PathLike, layout: str = "auto") -> PhotoFacts:
    """Looks at a folder or a table of images, and reads headers and colours of a sample.

    For a folder of records, the manifest gives only the number of images and their channels.

    Raises:
        ValueError: as `listing.list_images` and `Manifest.load`.
    """
    if os.path.isfile(os.path.join(data, MANIFEST)):
        manifest = load_manifest(data)
        records = {name: split.count for name, split in manifest.splits.items()}
        name, images = find_split(records, TRAINING), sum(records.values())
        images = images - held_out_of(images) if name is None else records[name]
        return PhotoFacts(images, 1.0, 0, manifest.channels == 1)
    with without_logs():  # a run lists them again, and reports what it left out
        splits = list_images(data, WHOLE, None, layout)
    training = splits[find_split(splits, TRAINING) or next(iter(splits))]
    counts = [count for count in np.bincount(training.labels).tolist() if count]
    if len(splits) == 1:
        counts = [max(count - held_out_of(count), 1) for count in counts]
    order = np.random.default_rng(0).permutation(len(training))[:HEADERS]
    side, is_grey = _look([os.path.join(training.folder, training.paths[i]) for i in order])
    return PhotoFacts(sum(counts), max(counts) / min(counts), side, is_grey)


def _look(paths: Sequence[str]) -> tuple[int, bool]:
    """Returns the median of the shorter sides, and whether the images are grey."""
    sides: list[int] = []
    decoded, coloured = 0, False
    for path in paths:
        try:
            picture = read_picture(path)
            if decoded < DECODED and not coloured:
                step = max(min(picture.width, picture.height) // COLOURS_SEEN, 1)
                pixels = read_image(path, 3)[::step, ::step].astype("int16")
                decoded += 1
                coloured = np.abs(pixels - np.roll(pixels, 1, axis=-1)).mean() > COLOURED
        except (OSError, ValueError):
            continue  # the run names it
        sides.append(min(picture.width, picture.height))
    return int(np.median(sides)) if sides else 0, bool(sides) and not coloured
