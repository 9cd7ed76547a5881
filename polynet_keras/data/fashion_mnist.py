"""Fashion-MNIST: its classes, and its files if they are installed."""

import gzip
from pathlib import Path

import numpy as np

from polynet_keras.data.source_names import FASHION_MNIST

FOLDER = Path("/usr/share/datasets/fashion-mnist")
"""Folder of the files in Debian's package `dataset-fashion-mnist`."""
CLASSES = (
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


def load_fashion_mnist() -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """Loads Zalando's 70,000 photographs of clothes, 28 x 28 px, grey: 60,000 for training, 10,000 for tests.

    The files come from Debian's package `dataset-fashion-mnist` if it is installed; otherwise Keras downloads them once
    into its cache. Source: H. Xiao, K. Rasul, R. Vollgraf, "Fashion-MNIST", arXiv:1708.07747; MIT licence.

    Returns:
        For each part images, uint8 array (count, 28, 28), and labels, uint8 array (count,).

    Raises:
        ValueError: the files are missing and cannot be downloaded.
    """
    if FOLDER.is_dir():
        return _read_idx("train"), _read_idx("t10k")
    import keras

    try:
        return keras.datasets.fashion_mnist.load_data()
    except Exception as error:  # Keras raises a bare Exception where a download fails
        raise ValueError(
            f"data={FASHION_MNIST!r} cannot be fetched: {error}; "
            "Debian has it as a package: apt install dataset-fashion-mnist"
        ) from None


def _read_idx(part: str) -> tuple[np.ndarray, np.ndarray]:
    """Reads images and labels in MNIST's file format: a header of 16 or 8 bytes, then one byte per pixel or label."""
    images, labels = (
        np.frombuffer(gzip.decompress((FOLDER / f"{part}-{kind}-ubyte.gz").read_bytes()), "uint8")[header:]
        for kind, header in (("images-idx3", 16), ("labels-idx1", 8))
    )
    return images.reshape(len(labels), 28, 28), labels
