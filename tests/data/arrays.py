"""Sources of images that a test has in memory."""

import io

import numpy as np
import tensorflow as tf
from PIL import Image

from polynet_keras.data.examples import Examples


def png(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels.squeeze(-1) if pixels.shape[-1] == 1 else pixels).save(file, "PNG")
    return file.getvalue()


def examples_of(encoded, labels=None, classes=None, channels=3, names=None) -> Examples:
    """Examples of encoded images; by default each is a class of its own."""
    labels = np.arange(len(encoded)) if labels is None else np.asarray(labels)
    classes = classes or int(labels.max()) + 1
    table, label_of = tf.constant(list(encoded)), tf.constant(labels, tf.int64)

    def read(index):
        return table[index], label_of[index]

    return Examples(
        name="arrays",
        class_names=tuple(f"class {i}" for i in range(classes)),
        channels=channels,
        count=len(encoded),
        read=read,
        name_of=(names or [f"image {i}" for i in range(len(encoded))]).__getitem__,
        fingerprint="0" * 64,
        labels=labels,
    )


def random_images(count=10, size=None, channels=3, seed=0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.integers(0, 256, (size or 20 + i, 90, channels)).astype("uint8") for i in range(count)]
