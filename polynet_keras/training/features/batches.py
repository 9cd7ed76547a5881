"""Features from files for `fit` and `evaluate`, in the order that the images would have."""

from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from polynet_keras.basics.tuning import untuned, usual_threads
from polynet_keras.data.examples import Examples
from polynet_keras.data.pipeline import PREFETCHED_BATCHES, Batches, drawn_batches
from polynet_keras.data.sampling import TrainingOrder, evaluation_share
from polynet_keras.data.unreadable import Unreadable
from polynet_keras.training.features.files import FeatureFiles


def training_features(
    copies: Sequence[FeatureFiles],
    examples: Examples,
    order: TrainingOrder,
    first_step: int,
    unreadable: Unreadable,
    *,
    augmented: bool,
) -> tf.data.Dataset:
    """Returns an endless dataset of (features, labels) batches, from a step on.

    Each epoch uses the next copy in turn. Repeated draws of an image in one epoch come from different copies, as far as
    there are enough. The next readable image replaces an unreadable one; augmented copies contain the replacement
    already.

    Args:
        copies: features of the training images, one for each copy.
        examples: the training images.
        order: order of their indices.
        first_step: global step to begin with.
        unreadable: receives this worker's part of the unreadable images at once.
        augmented: whether the copies are augmented; otherwise they are centre crops.
    """
    facts = [one.facts() for one in copies]
    all_readable = np.logical_and.reduce([readable for _, readable in facts])
    _keep(np.flatnonzero(~all_readable)[order.worker :: order.workers], examples, unreadable)
    places = [np.arange(order.count) if augmented else _next_readable(readable, order.labels) for _, readable in facts]

    def batch(epochs: np.ndarray, draws: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        times, indices = np.divmod(draws, order.count)
        features = np.empty((len(draws), *copies[0].shape), copies[0].dtype)
        labels = np.empty(len(draws), "int64")
        which = (epochs + times) % len(copies)
        for number in np.unique(which):
            here = which == number
            found = places[number][indices[here]]
            features[here] = copies[number].features(found)
            labels[here] = facts[number][0][found]
        return features, labels

    return _batches(drawn_batches(order, first_step), copies[0], batch, (tf.int64,))


def evaluation_features(
    files: FeatureFiles, examples: Examples, batch_size: int, workers: int, worker: int, unreadable: Unreadable
) -> Batches:
    """Returns batches of (features, labels, indices, valid), like `evaluation_batches` for images.

    Args:
        files: features of the examples.
        examples: the examples.
        batch_size: batch size of one worker.
        workers: number of workers that share the examples.
        worker: index of this worker, from 0.
        unreadable: receives this worker's unreadable images at once.
    """
    share = evaluation_share(len(examples), batch_size, workers, worker)
    labels, readable = files.facts()
    _keep(share[(share >= 0) & ~readable[share]], examples, unreadable)

    def batch(indices: np.ndarray) -> tuple[np.ndarray, ...]:
        return files.features(np.maximum(indices, 0)), labels[indices], indices, (indices >= 0) & readable[indices]

    dataset = tf.data.Dataset.from_tensor_slices(share).batch(batch_size)
    types = (tf.int64, tf.int64, tf.bool)
    return Batches(_batches(dataset, files, batch, types), len(share) // batch_size)


def _keep(indices: np.ndarray, examples: Examples, unreadable: Unreadable) -> None:
    for index in map(int, indices):
        text = f"{examples.shown_name(index)}: could not be read when its features were computed"
        unreadable.keep(index, ValueError(text))


def _batches(dataset: tf.data.Dataset, files: FeatureFiles, batch, types: tuple[tf.DType, ...]) -> tf.data.Dataset:
    def of_files(*draws: tf.Tensor):
        features, *others = tf.numpy_function(batch, draws, (tf.as_dtype(files.dtype), *types), stateful=False)
        shape = tf.TensorShape([None, *files.shape])
        return tf.ensure_shape(features, shape), *(tf.ensure_shape(one, (None,)) for one in others)

    made = dataset.map(tf.autograph.experimental.do_not_convert(of_files))
    return untuned(made.prefetch(PREFETCHED_BATCHES), usual_threads())


def _next_readable(readable: np.ndarray, labels: np.ndarray | None) -> np.ndarray:
    """Returns for each example the next readable one, itself included, cyclically: int64 array (count,).

    With labels, it is the next one of the same class if there is one.
    """
    good = np.flatnonzero(readable)
    if not len(good):
        raise ValueError("no image to train on could be read")
    places = good[np.searchsorted(good, np.arange(len(readable))) % len(good)]
    if labels is None:
        return places
    for index in np.flatnonzero(~readable):
        alike = np.flatnonzero(readable & (labels == labels[index]))
        if len(alike):
            places[index] = alike[np.searchsorted(alike, index) % len(alike)]
    return places
