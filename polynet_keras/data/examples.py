"""The interface of all sources: encoded, labelled images that are read by their index."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import tensorflow as tf

from polynet_keras.basics.names import shown
from polynet_keras.basics.tensorflow_errors import plain_message
from polynet_keras.basics.tuning import untuned, usual_threads
from polynet_keras.data.image_files import decode_image


@dataclass(frozen=True)
class Examples:
    """Encoded, labelled images that are read by their index, in any order.

    Attributes:
        name: of the dataset and its split, in results.
        class_names: by label.
        channels: of every decoded image.
        count: number of images.
        read: from an index, an int64 scalar tensor, to the encoded image, a string scalar, and its label, an int64
            scalar, inside a graph.
        name_of: what to call image i: its path, or an identifier.
        fingerprint: SHA-256 of what tells these images from others: 64 hexadecimal digits.
        labels: int64 array (count,), where they are known without reading all images.
        are_files: whether the names are paths of image files.
    """

    name: str
    class_names: tuple[str, ...]
    channels: int
    count: int
    read: Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor]]
    name_of: Callable[[int], str]
    fingerprint: str
    labels: np.ndarray | None = None
    are_files: bool = False

    def __len__(self) -> int:
        return self.count

    def image(self, index: int) -> np.ndarray:
        """Image i, decoded: uint8 array (height, width, channels).

        Raises:
            ValueError: it cannot be read or decoded; the message names it.
        """
        try:
            encoded, _ = self.read(tf.constant(index, tf.int64))
        except tf.errors.OpError as error:
            raise ValueError(f"{self.shown_name(index)}: cannot be read: {plain_message(error)}") from None
        return decode_image(encoded.numpy(), self.channels, self.shown_name(index))

    def shown_name(self, index: int) -> str:
        """What a message calls image i."""
        return shown(self.name_of(index))

    def label(self, index: int) -> int:
        return int(self.read(tf.constant(index, tf.int64))[1])

    def dataset(self) -> tf.data.Dataset:
        """All examples in order: (encoded image, label, index)."""
        indices = tf.data.Dataset.range(self.count)
        examples = indices.map(lambda index: (*self.read(index), index), num_parallel_calls=tf.data.AUTOTUNE)
        return untuned(examples, usual_threads())

    def subset(self, indices: np.ndarray, name: str) -> "Examples":
        """Some of the examples, under a name of their own, in the order of `indices`."""
        table = tf.constant(indices, tf.int64)
        digest = hashlib.sha256(self.fingerprint.encode() + np.asarray(indices, "<i8").tobytes())
        return replace(
            self,
            name=name,
            count=len(indices),
            read=lambda index: self.read(table[index]),
            name_of=lambda index: self.name_of(int(indices[index])),
            fingerprint=digest.hexdigest(),
            labels=None if self.labels is None else self.labels[indices],
        )

    def relabelled(self, class_names: Sequence[str], labels: Sequence[int]) -> "Examples":
        """The same images with `labels[i]` for the label i, an index into other class names."""
        table = np.asarray(labels, "int64")
        label_of = tf.constant(table)

        def read(index: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            encoded, label = self.read(index)
            return encoded, label_of[label]

        known = None if self.labels is None else table[self.labels]
        return replace(self, class_names=tuple(class_names), read=read, labels=known)


@dataclass(frozen=True)
class Source:
    """A training and a held-out set of examples of the same classes, disjoint."""

    training: Examples
    held_out: Examples

    @property
    def class_names(self) -> tuple[str, ...]:
        return self.training.class_names

    @property
    def channels(self) -> int:
        return self.training.channels


HELD_OUT = 0.2
"""The share of each class that is held out from training, where the data has no split of its own."""


def hold_out(examples: Examples, seed: int) -> Source:
    """Holds out the same share of each class, at least one image, drawn with `seed`.

    Where the labels are not known without reading all images, the share is one of all images.

    Raises:
        ValueError: a class of fewer than two images.
    """
    generator = np.random.default_rng(seed)
    labels = np.zeros(len(examples), int) if examples.labels is None else examples.labels
    held_out = np.zeros(len(examples), dtype=bool)
    for label in np.unique(labels):
        members = generator.permutation(np.flatnonzero(labels == label))
        if len(members) < 2:
            raise ValueError(
                f"class {examples.class_names[label]!r} of {examples.name} has 1 image; each class needs at least 2, "
                "one of them held out"
            )
        held_out[members[: max(1, round(HELD_OUT * len(members)))]] = True
    return Source(
        examples.subset(np.flatnonzero(~held_out), f"{examples.name}, training"),
        examples.subset(np.flatnonzero(held_out), f"{examples.name}, held out"),
    )
