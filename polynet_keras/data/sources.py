"""Sources: where labelled images come from, split into a training and a held-out part."""

import dataclasses
import gzip
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np

from polynet_keras.data.extras import require_data_extra
from polynet_keras.data.preprocessing import read_image

DIGITS = "digits"
FASHION_MNIST = "fashion_mnist"
FASHION_MNIST_FOLDER = Path("/usr/share/datasets/fashion-mnist")
"""Where Debian's package `dataset-fashion-mnist` has its files."""
FASHION_MNIST_CLASSES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)
BUILT_IN = (DIGITS, FASHION_MNIST)
"""The sources that have a name; all others are folders."""
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
    """Opens `"digits"`, `"fashion_mnist"` or a folder of classes.

    Args:
        data: `"digits"`, `"fashion_mnist"`, or a folder with one folder of images a class.
        seed: of the split; the same seed gives the same split. Fashion-MNIST has a split of its own.

    Raises:
        ValueError: no such data, or a folder that is not one of classes; the message says what was expected.
    """
    if data == DIGITS:
        return digits(seed)
    if data == FASHION_MNIST:
        return fashion_mnist()
    return image_folder(data, seed)


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


def fashion_mnist() -> Source:
    """Zalando's 70,000 photographs of clothes, 28 × 28 px, grey: 60,000 to train on, its test set of 10,000 held out.

    The files are those of Debian's package `dataset-fashion-mnist` where it is installed; else Keras fetches them once
    into its cache. Source: H. Xiao, K. Rasul, R. Vollgraf, "Fashion-MNIST", arXiv:1708.07747; MIT licence.

    Raises:
        ValueError: the files are not there and cannot be fetched.
    """
    if FASHION_MNIST_FOLDER.is_dir():
        parts = [_read_idx(part) for part in ("train", "t10k")]
    else:
        try:
            parts = list(keras.datasets.fashion_mnist.load_data())
        except Exception as error:  # Keras raises a bare Exception where a download fails
            raise ValueError(
                f"data={FASHION_MNIST!r} cannot be fetched: {error}; "
                "Debian has it as a package: apt install dataset-fashion-mnist"
            ) from None

    def subset(name: str, images: np.ndarray, labels: np.ndarray) -> Images:
        names = tuple(f"{name}-{i:05d}" for i in range(len(images)))
        return Images(lambda i: images[i][..., np.newaxis], labels.astype("int64"), names)

    return Source(FASHION_MNIST_CLASSES, 1, subset("training", *parts[0]), subset("test", *parts[1]))


def _read_idx(part: str) -> tuple[np.ndarray, np.ndarray]:
    """Images and labels in MNIST's file format: a header of 16 or 8 bytes, then one byte a pixel or label."""
    labels = np.frombuffer(
        gzip.decompress((FASHION_MNIST_FOLDER / f"{part}-labels-idx1-ubyte.gz").read_bytes()), "uint8"
    )[8:]
    images = np.frombuffer(
        gzip.decompress((FASHION_MNIST_FOLDER / f"{part}-images-idx3-ubyte.gz").read_bytes()), "uint8"
    )[16:]
    return images.reshape(len(labels), 28, 28), labels


def image_folder(folder: str | os.PathLike, seed: int) -> Source:
    """A folder with one folder of images a class, as torchvision's `ImageFolder` and Keras read it; RGB.

    Images lie anywhere below their class's folder; hidden files and folders are passed over.

    Raises:
        ValueError: no such folder, fewer than two classes, or a class of fewer than two images.
    """
    root = Path(folder)
    named = ", ".join(map(repr, BUILT_IN))
    expected = f"expected {named} or a folder with one folder of images for each class, such as DATA/cat/1.jpg"
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
