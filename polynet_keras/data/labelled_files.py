"""Labelled image files from a folder or a table, and the checks of their classes."""

import hashlib
import os
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from absl import logging

from polynet_keras.basics.names import listed, number_of, shown


@dataclass(frozen=True)
class LabelledFiles:
    """The labelled images of a folder or of a table.

    Attributes:
        folder: the folder that the paths are relative to.
        class_names: names by label; a class may have no image here.
        paths: relative paths of the images, with slashes; sorted by class, then by path. A table may name absolute
            ones.
        labels: int64 array (count,), indices into the class names.
        sizes: int64 array (count,), in bytes.
    """

    folder: Path
    class_names: tuple[str, ...]
    paths: tuple[str, ...]
    labels: np.ndarray
    sizes: np.ndarray

    def __len__(self) -> int:
        return len(self.paths)

    @property
    def fingerprint(self) -> str:
        """SHA-256, in hex, of the class names and of each image's path, size and label, but not of its bytes."""
        digest = hashlib.sha256("\n".join(self.class_names).encode("utf-8", "surrogateescape"))
        for path, size, label in zip(self.paths, self.sizes, self.labels, strict=True):
            digest.update(b"\0%s\0%d\0%d" % (os.fsencode(path), size, label))
        return digest.hexdigest()


def check_distinct(classes: Mapping[str, str], where: str, cure: str) -> None:
    """Refuses two classes whose names differ only in upper and lower case, or in the encoding of an accent.

    Such names come from systems that treat them as equal: training would have three classes instead of two.

    Args:
        classes: for each class name, the place where it was found.
        where: the place of all of them, for the message.
        cure: what to do.

    Raises:
        ValueError: there are two such classes; the message has both.
    """
    first: dict[str, str] = {}
    for name, place in classes.items():
        same = unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).lower())
        if same not in first:
            first[same] = name
            continue
        other = first[same]
        how = "upper and lower case"
        if unicodedata.normalize("NFC", name) == unicodedata.normalize("NFC", other):
            how = f"how an accent is encoded ({' and '.join(_escaped(one) for one in (other, name))})"
        both = f"'{shown(classes[other])}' and '{shown(place)}'"
        raise ValueError(f"{where} has {both}, two classes whose names differ only in {how}; {cure}")


def _escaped(name: str) -> str:
    return name.encode("unicode_escape").decode()


def warn_of_untrained(class_names: Sequence[str], labels: np.ndarray, where: str) -> None:
    """Warns of classes without training images, which cannot be learned.

    Args:
        class_names: names by label.
        labels: labels of the training images.
        where: place of the images, for the message.
    """
    missing = np.setdiff1d(np.arange(len(class_names)), labels)
    if len(missing):
        have = number_of(len(missing), "class has", "classes have")
        logging.warning(
            "%s: %s no image to train on: %s", where, have, listed([class_names[label] for label in missing])
        )
