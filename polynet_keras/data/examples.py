"""The interface of all sources: encoded, labelled images with access by index."""

import errno
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import tensorflow as tf

from polynet_keras.basics.names import shown
from polynet_keras.basics.tensorflow_errors import plain_message
from polynet_keras.basics.tuning import untuned, usual_threads
from polynet_keras.data.image_files import decode_image
from polynet_keras.data.splits import HELD_OUT, held_out_of
from polynet_keras.data.unreadable import OF_THE_FILE


@dataclass(frozen=True)
class Examples:
    """Encoded, labelled images with access by index, in any order.

    Attributes:
        name: name of the dataset and its split, for results.
        class_names: names by label.
        channels: channels of every decoded image.
        count: number of images.
        read: function from an index, an int64 scalar tensor, to the encoded image, a string scalar, and its label, an
            int64 scalar, inside a graph.
        name_of: returns the name of image i: its path, or an identifier.
        fingerprint: SHA-256 that distinguishes these images from others: 64 hexadecimal digits.
        labels: int64 array (count,), if they are known without reading all images.
        file_sizes: int64 array (count,), in bytes, if the images are files, whose paths are the names.

    Examples:
        >>> examples = open_split("digits")
        >>> len(examples), examples.class_names[:3]
        (1797, ('0', '1', '2'))
        >>> examples.image(0).shape, examples.label(0)
        ((8, 8, 1), 0)
    """

    name: str
    class_names: tuple[str, ...]
    channels: int
    count: int
    read: Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor]]
    name_of: Callable[[int], str]
    fingerprint: str
    labels: np.ndarray | None = None
    file_sizes: np.ndarray | None = None

    def __len__(self) -> int:
        return self.count

    @property
    def are_files(self) -> bool:
        """Whether the names are paths of image files."""
        return self.file_sizes is not None

    def encoded(self, index: int) -> bytes:
        """Returns image i as it is stored.

        Raises:
            ValueError: the image cannot be read; the message names it.
        """
        try:
            encoded, _ = self.read(tf.constant(index, tf.int64))
        except tf.errors.OpError as error:
            raise ValueError(f"{self.shown_name(index)}: cannot be read: {plain_message(error)}") from None
        return encoded.numpy()

    def image(self, index: int) -> np.ndarray:
        """Returns image i, decoded: uint8 array (height, width, channels).

        Raises:
            ValueError: the image cannot be read or decoded; the message names it.
        """
        return decode_image(self.encoded(index), self.channels, self.shown_name(index))

    def shown_name(self, index: int) -> str:
        """Returns the name of image i in messages."""
        return shown(self.name_of(index))

    def label(self, index: int) -> int:
        return int(self.read(tf.constant(index, tf.int64))[1])

    def labelled(self, on_error: str = "error") -> "Examples":
        """Returns the same examples with known labels; reads all examples if needed.

        Args:
            on_error: `"error"` or `"skip"`: how to handle an example that cannot be read. A skipped example counts for
                the class of the readable one before it, or else after it.

        Raises:
            ValueError: an example cannot be read, or under `"skip"` none can.
            OSError: the storage failed.
        """
        if self.labels is not None:
            return self
        pairs = tf.data.Dataset.range(self.count).map(
            lambda i: (i, self.read(i)[1]), num_parallel_calls=tf.data.AUTOTUNE
        )
        if on_error == "skip":
            pairs = pairs.ignore_errors()
        try:
            parts = [*untuned(pairs.batch(1024), usual_threads()).as_numpy_iterator()]
        except tf.errors.OpError as error:
            raise ValueError(f"{self.name}: its labels cannot be read: {plain_message(error)}") from None
        if not parts:
            raise ValueError(f"{self.name}: the label of none of its images can be read")
        known, found = (np.concatenate(part) for part in zip(*parts, strict=True))
        labels = found[np.maximum(np.searchsorted(known, np.arange(self.count), "right") - 1, 0)]
        for index in np.setdiff1d(np.arange(self.count), known):
            try:
                labels[index] = self.label(int(index))
            except OF_THE_FILE:
                continue
            except tf.errors.OpError as error:
                message = f"{self.shown_name(int(index))}: cannot be read: {plain_message(error)}"
                raise OSError(errno.EIO, message) from None
        return replace(self, labels=labels)

    def dataset(self) -> tf.data.Dataset:
        """Returns all examples in order: (encoded image, label, index)."""
        indices = tf.data.Dataset.range(self.count)
        examples = indices.map(lambda index: (*self.read(index), index), num_parallel_calls=tf.data.AUTOTUNE)
        return untuned(examples, usual_threads())

    def subset(self, indices: np.ndarray, name: str) -> "Examples":
        """Returns some of the examples under another name, in the order of `indices`."""
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
            file_sizes=None if self.file_sizes is None else self.file_sizes[indices],
        )

    def relabelled(self, class_names: Sequence[str], labels: Sequence[int]) -> "Examples":
        """Returns the same images with label i replaced by `labels[i]`, an index into other class names."""
        table = np.asarray(labels, "int64")
        label_of = tf.constant(table)

        def read(index: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            encoded, label = self.read(index)
            return encoded, label_of[label]

        known = None if self.labels is None else table[self.labels]
        return replace(self, class_names=tuple(class_names), read=read, labels=known)


@dataclass(frozen=True)
class Source:
    """Disjoint training and held-out examples of the same classes, and optionally examples that choose the best epoch.

    Attributes:
        training, held_out: the two sets.
        seed: seed that drew the held-out examples; None if the data has its own splits.
        unused: other splits of the data, by name.
        validation: examples that choose the best epoch; None if the last epoch is used.
        validation_share: share of the training images drawn for it; 0 if the data has its own split for it.
    """

    training: Examples
    held_out: Examples
    seed: int | None = None
    unused: dict[str, Examples] = field(default_factory=dict)
    validation: Examples | None = None
    validation_share: float = 0.0

    @property
    def parts(self) -> list[Examples]:
        """Returns the sets of a run: training, validation if there is one, and held-out."""
        return [part for part in (self.training, self.validation, self.held_out) if part is not None]

    @property
    def class_names(self) -> tuple[str, ...]:
        return self.training.class_names

    @property
    def channels(self) -> int:
        return self.training.channels


def hold_out(examples: Examples, seed: int) -> Source:
    """Holds out the same share of each class, at least one image, drawn with `seed`.

    If the labels are not known without reading all images, the share is one of all images.

    Raises:
        ValueError: a class has fewer than two images.
    """
    held_out = _drawn(examples, HELD_OUT, np.random.default_rng(seed), "held out")
    return Source(
        examples.subset(np.flatnonzero(~held_out), f"{examples.name}, training"),
        examples.subset(np.flatnonzero(held_out), f"{examples.name}, held out"),
        seed,
    )


def with_validation(source: Source, share: float, seed: int) -> Source:
    """Takes a share of each class's training images out, as `hold_out` does, to choose the best epoch.

    Raises:
        ValueError: a class has fewer than two training images.
    """
    training = source.training
    chosen = _drawn(training, share, np.random.default_rng((seed, 1)), f"for validation_share={share:g}")
    return replace(
        source,
        training=training.subset(np.flatnonzero(~chosen), training.name),
        validation=training.subset(np.flatnonzero(chosen), f"{training.name}, validation"),
        validation_share=share,
    )


def _drawn(examples: Examples, share: float, generator: np.random.Generator, what_for: str) -> np.ndarray:
    """Draws examples: bool array (count,), the share of each class, but at least one and not all."""
    labels = np.zeros(len(examples), int) if examples.labels is None else examples.labels
    drawn = np.zeros(len(examples), dtype=bool)
    for label in np.unique(labels):
        members = generator.permutation(np.flatnonzero(labels == label))
        if len(members) < 2:
            raise ValueError(
                f"class {examples.class_names[label]!r} of {examples.name} has 1 image; each class needs at least 2, "
                f"one of them {what_for}"
            )
        drawn[members[: held_out_of(len(members), share)]] = True
    return drawn
