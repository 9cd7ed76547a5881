"""Sources: where labelled images come from, split into a training and a held-out part."""

import dataclasses
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from polynet_keras.data.extras import require_data_extra
from polynet_keras.data.preprocessing import read_image

DIGITS = "digits"
IMAGE_SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".webp")
HELD_OUT = 0.2
"""The share of each class that is held out from training."""


@dataclass(frozen=True)
class Images:
    """Labelled images, decoded one at a time.

    Attributes:
        read: gives image i as a uint8 array (height, width, channels).
        labels: int64 array (count,), indices into the source's class names.
        names: what to call image i: an identifier, or its path.
        are_files: whether the names are paths of image files.
    """

    read: Callable[[int], np.ndarray]
    labels: np.ndarray
    names: tuple[str, ...]
    are_files: bool = False

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class Source:
    """A training and a held-out set of images of the same classes.

    Attributes:
        class_names: by label.
        channels: of every image.
        training, held_out: disjoint sets of images.
    """

    class_names: tuple[str, ...]
    channels: int
    training: Images
    held_out: Images


def open_source(data: str | os.PathLike, seed: int) -> Source:
    """Opens `"digits"` or a folder of classes.

    Args:
        data: `"digits"`, or a folder with one folder of images a class.
        seed: of the split; the same seed gives the same split.

    Raises:
        ValueError: no such data, or a folder that is not one of classes; the message says what was expected.
    """
    return digits(seed) if data == DIGITS else image_folder(data, seed)


def digits(seed: int) -> Source:
    """The 1,797 handwritten digits that ship with scikit-learn: scans of 8 × 8 px, grey, ink bright on black.

    Source: E. Alpaydin and C. Kaynak, "Optical Recognition of Handwritten Digits", UCI Machine Learning Repository,
    1998: its test set, of 13 writers.
    """
    require_data_extra("sklearn")
    from sklearn.datasets import load_digits

    bunch = load_digits()
    scans = np.round(bunch.images * (255 / 16)).astype("uint8")[..., np.newaxis]  # stored as 0..16
    names = tuple(f"digit-{i:04d}" for i in range(len(scans)))
    return _split(lambda i: scans[i], bunch.target, names, tuple(map(str, bunch.target_names)), 1, seed)


def image_folder(folder: str | os.PathLike, seed: int) -> Source:
    """A folder with one folder of images a class, as torchvision's `ImageFolder` and Keras read it; RGB.

    Images lie anywhere below their class's folder; hidden files and folders are passed over.

    Raises:
        ValueError: no such folder, fewer than two classes, or a class of fewer than two images.
    """
    root = Path(folder)
    expected = "expected 'digits' or a folder with one folder of images for each class, such as DATA/cat/1.jpg"
    if not root.is_dir():
        raise ValueError(f"data={os.fspath(folder)!r} is no folder; {expected}")
    classes = sorted(path.name for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))
    if len(classes) < 2:
        raise ValueError(f"data={os.fspath(folder)!r} holds {len(classes)} folders; {expected}, two classes or more")
    paths: list[str] = []
    labels: list[int] = []
    for label, name in enumerate(classes):
        files = sorted(
            str(path)
            for path in (root / name).rglob("*")
            if path.suffix.lower() in IMAGE_SUFFIXES
            and path.is_file()
            and not any(part.startswith(".") for part in path.relative_to(root).parts)
        )
        if len(files) < 2:
            raise ValueError(
                f"class {name!r} of data={os.fspath(folder)!r} has {len(files)} images; each class needs at least 2, "
                f"one of them held out ({', '.join(IMAGE_SUFFIXES)})"
            )
        paths += files
        labels += [label] * len(files)
    source = _split(lambda i: read_image(paths[i], 3), np.array(labels), tuple(paths), tuple(classes), 3, seed)
    training, held_out = (dataclasses.replace(part, are_files=True) for part in (source.training, source.held_out))
    return dataclasses.replace(source, training=training, held_out=held_out)


def _split(read, labels: np.ndarray, names, class_names, channels: int, seed: int) -> Source:
    """Holds out the same share of each class, at least one image, drawn with `seed`."""
    generator = np.random.default_rng(seed)
    held_out = np.zeros(len(labels), dtype=bool)
    for label in range(len(class_names)):
        members = generator.permutation(np.flatnonzero(labels == label))
        held_out[members[: max(1, round(HELD_OUT * len(members)))]] = True

    def subset(indices: np.ndarray) -> Images:
        return Images(
            lambda i: read(indices[i]), labels[indices].astype("int64"), tuple(names[index] for index in indices)
        )

    training, rest = subset(np.flatnonzero(~held_out)), subset(np.flatnonzero(held_out))
    return Source(class_names, channels, training, rest)
