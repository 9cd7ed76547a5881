"""Batches for `fit` and `evaluate` from a source's examples, as tf.data datasets."""

from collections.abc import Sequence
from dataclasses import dataclass

import keras
import numpy as np
import tensorflow as tf

from polynet_keras.basics.checks import check_choice
from polynet_keras.basics.tuning import untuned, usual_threads
from polynet_keras.data.augmentation import Augmentation
from polynet_keras.data.decoding import decode_region
from polynet_keras.data.distortion import Mixing
from polynet_keras.data.example_images import augmented_example, centre_crop
from polynet_keras.data.examples import Examples
from polynet_keras.data.protocol import Preprocessing
from polynet_keras.data.sampling import SAMPLINGS, TrainingOrder, evaluation_share
from polynet_keras.data.unreadable import Unreadable

PREFETCHED_BATCHES = 2
"""Batches ahead of use: one that is ready for `fit`, and one in preparation."""


@dataclass(frozen=True)
class Batches:
    """A dataset of batches, and their number.

    Attributes:
        dataset: dataset of batches.
        steps: number of batches in an epoch.
    """

    dataset: tf.data.Dataset
    steps: int


def training_batches(
    examples: Examples,
    preprocessing: Preprocessing,
    batch_size: int,
    seed: int,
    augmentation: Augmentation | None = None,
    *,
    sampling: str = "uniform",
    first_step: int = 0,
    workers: int = 1,
    worker: int = 0,
    replicas: int = 1,
    unreadable: Unreadable | None = None,
) -> Batches:
    """Returns endless shuffled batches of augmented images; call `fit` with `steps_per_epoch=batches.steps`.

    Order, crops and distortions of an epoch are functions of the seed, the epoch and the example. They do not depend on
    the number of threads or workers, nor on the first step. The next readable image in the source replaces a skipped
    image, so that batches stay full. With balanced sampling, it is the next one of the same class, if there is any.

    Args:
        examples: the training examples.
        preprocessing: the protocol of the network.
        batch_size: batch size of all workers together.
        seed: seed of order and augmentation.
        augmentation: by default only the poster's random crop.
        sampling: `"uniform"`: an epoch has each image once; `"balanced"`: it has as many images, and each class equally
            often (`data.sampling`). An image that it has twice is augmented anew.
        first_step: global step to begin with, counted from the first epoch's first.
        workers: number of workers that share the batches.
        worker: index of this worker, from 0.
        replicas: devices of a worker: each gets its own batch at every step, one after the other.
        unreadable: receives the images that cannot be read while the dataset is iterated; by default they are errors.

    Returns:
        Batches of (images, labels): float32 (batch, size, size, channels), or (batch, channels, size, size) under the
        data format channels_first; int64 (batch,), or float32 (batch, classes) if images are mixed. The last batch of
        an epoch has the remaining images.

    Raises:
        ValueError: arguments are out of range or do not fit each other.

    Examples:
        >>> source = open_source(photos, seed=0)
        >>> batches = training_batches(source.training, Preprocessing(16, 18), batch_size=4, seed=0)
        >>> images, labels = next(iter(batches.dataset))
        >>> tuple(images.shape), batches.steps
        ((4, 16, 16, 3), 2)
    """
    augmentation = augmentation or Augmentation()
    unreadable = unreadable or Unreadable()
    order = training_order(
        examples,
        batch_size,
        seed,
        sampling=sampling,
        workers=workers,
        worker=worker,
        replicas=replicas,
        group=2 if augmentation.mixes else 1,
        repeats=augmentation.repeats,
        on_error=unreadable.on_error,
    )
    example = augmented_example(examples, preprocessing, seed, augmentation, unreadable, order.labels)
    dataset = _endless(order, *divmod(first_step, order.steps)).map(
        tf.autograph.experimental.do_not_convert(lambda epoch, draw: example(epoch, draw)[:3]),
        num_parallel_calls=tf.data.AUTOTUNE,
    )
    dataset = dataset.batch(1)
    sizes = order.sizes_from(first_step)
    if augmentation.mixes:
        mix = Mixing(augmentation, len(examples.class_names))

        def mixed(images, labels, seeds):
            return mix(images, labels, seeds[0])

        pairs = np.concatenate([_pair_sizes(size) for size in sizes])
        dataset = dataset.rebatch(pairs).map(
            tf.autograph.experimental.do_not_convert(mixed), num_parallel_calls=tf.data.AUTOTUNE
        )
    else:
        dataset = dataset.map(lambda images, labels, _: (images, labels))
    return Batches(_finished(_without_end(dataset.rebatch(sizes))), order.steps)


def training_order(
    examples: Examples,
    batch_size: int,
    seed: int,
    *,
    sampling: str = "uniform",
    workers: int = 1,
    worker: int = 0,
    replicas: int = 1,
    group: int = 1,
    repeats: int = 1,
    on_error: str = "error",
) -> TrainingOrder:
    """Returns the order of training examples; arguments as in `training_batches` and `TrainingOrder`."""
    check_choice("sampling", sampling, SAMPLINGS)
    labels = examples.labelled(on_error).labels if sampling == "balanced" else None
    return TrainingOrder(len(examples), batch_size, seed, workers, worker, replicas, group, labels, repeats)


def drawn_batches(order: TrainingOrder, first_step: int) -> tf.data.Dataset:
    """Returns a worker's draws for each batch, endless, from a step on: (epochs, draws), int64 (batch,)."""
    draws = _endless(order, *divmod(first_step, order.steps)).batch(1)
    return _without_end(draws.rebatch(order.sizes_from(first_step)))


def images_once(
    examples: Examples,
    preprocessing: Preprocessing,
    indices: np.ndarray,
    sizes: Sequence[int],
    unreadable: Unreadable,
    *,
    epochs: np.ndarray | None = None,
    seed: int = 0,
    augmentation: Augmentation | None = None,
    labels: np.ndarray | None = None,
) -> tf.data.Dataset:
    """Returns chosen examples in a given order, each once.

    Args:
        examples: the examples.
        preprocessing: the protocol of the network.
        indices: int64 array (count,), of the examples.
        sizes: sizes of the batches in order; they add up to `count`.
        unreadable: receives the images that cannot be read.
        epochs: int64 array (count,): the images are those of `training_batches` in these epochs. By default they are
            centre crops, as in `evaluation_batches`.
        seed: as in `training_batches`, if there are epochs.
        augmentation: as in `training_batches`, if there are epochs.
        labels: as in `TrainingOrder`, if there are epochs.

    Returns:
        Batches of (images, labels, valid), as in `evaluation_batches`. With epochs, the place of a skipped image has
        the image and the label that replace it in training, and is not valid.
    """
    if epochs is None:
        crop = centre_crop(examples, preprocessing, unreadable)

        def one(index: tf.Tensor, epoch: tf.Tensor):
            image, label, _, valid = crop(index)
            return image, label, valid

    else:
        augmented = augmented_example(examples, preprocessing, seed, augmentation or Augmentation(), unreadable, labels)

        def one(index: tf.Tensor, epoch: tf.Tensor):
            image, label, _, valid = augmented(epoch, index)
            return image, label, valid

    draws = (indices, np.zeros_like(indices) if epochs is None else epochs)
    dataset = tf.data.Dataset.from_tensor_slices(draws).map(
        tf.autograph.experimental.do_not_convert(one), num_parallel_calls=tf.data.AUTOTUNE
    )
    return _finished(dataset.batch(1).rebatch(sizes))


def evaluation_batches(
    examples: Examples,
    preprocessing: Preprocessing,
    batch_size: int,
    *,
    workers: int = 1,
    worker: int = 0,
    unreadable: Unreadable | None = None,
) -> Batches:
    """Returns full batches of centre crops in the source's order, as `Preprocessing` makes them image by image.

    Every worker has the same number of batches, and all examples are in them once. Empty places, and those of skipped
    images, are zeros and are marked.

    Args:
        examples: the examples to evaluate.
        preprocessing: the protocol.
        batch_size: batch size of one worker.
        workers: number of workers that share the examples.
        worker: index of this worker, from 0.
        unreadable: receives the images that cannot be read while the dataset is iterated; by default they are errors.

    Returns:
        Batches of (images, labels, indices, valid): images as in `training_batches`, int64 (batch,) twice, and whether
        the place has an example, bool (batch,).

    Examples:
        >>> batches = evaluation_batches(open_split(photos), Preprocessing(16, 18), batch_size=4)
        >>> images, labels, indices, valid = next(iter(batches.dataset))
        >>> tuple(images.shape), batches.steps
        ((4, 16, 16, 3), 3)
    """
    share = evaluation_share(len(examples), batch_size, workers, worker)
    example = centre_crop(examples, preprocessing, unreadable or Unreadable())
    dataset = tf.data.Dataset.from_tensor_slices(share).map(
        tf.autograph.experimental.do_not_convert(example), num_parallel_calls=tf.data.AUTOTUNE
    )
    return Batches(_finished(dataset.batch(batch_size, drop_remainder=True)), len(share) // batch_size)


def validation_data(batches: Batches) -> tf.data.Dataset:
    """Returns evaluation batches for `fit`, (images, labels), without the places that have no example.

    Examples:
        >>> batches = evaluation_batches(open_split(photos), Preprocessing(16, 18), batch_size=4)
        >>> [len(labels) for images, labels in validation_data(batches)]
        [4, 4, 2]
    """

    def valid_part(images, labels, _, valid):
        return tf.boolean_mask(images, valid), tf.boolean_mask(labels, valid)

    dataset = batches.dataset.map(tf.autograph.experimental.do_not_convert(valid_part))
    return dataset.filter(lambda images, labels: tf.size(labels) > 0)  # all of a batch's images may have been skipped


def decoded_images(
    examples: Examples,
    least_side: int | None = None,
    *,
    workers: int = 1,
    worker: int = 0,
    unreadable: Unreadable | None = None,
) -> Batches:
    """Returns a worker's share of the examples as whole images, in batches of one.

    Batches are (uint8 (1, height, width, channels), label, index, whether the image could be read). Arguments are as in
    `evaluation_batches` and `read_image`."""
    share = evaluation_share(len(examples), 1, workers, worker)
    share = share[share >= 0]
    unreadable = unreadable or Unreadable()

    def example(index: tf.Tensor):
        image, label, readable = decode_region(index, examples, unreadable, least_side=least_side)
        return image, label, index, readable

    # Whole photographs are large: two at a time, and two that wait.
    dataset = tf.data.Dataset.from_tensor_slices(share).map(
        tf.autograph.experimental.do_not_convert(example), num_parallel_calls=2
    )
    return Batches(untuned(dataset.batch(1).prefetch(2), usual_threads()), len(share))


def _without_end(dataset: tf.data.Dataset) -> tf.data.Dataset:
    """Marks a dataset as infinite, so that a distributed dataset does not ask all workers at every step for its end."""
    return dataset.apply(tf.data.experimental.assert_cardinality(tf.data.INFINITE_CARDINALITY))


def _endless(order: TrainingOrder, first_epoch: int, first_step: int) -> tf.data.Dataset:
    """Returns (epoch, draw) of a worker's examples, from a step of an epoch on."""

    def share(epoch: np.int64) -> np.ndarray:
        return order.share(int(epoch), first_step if epoch == first_epoch else 0)

    def of_epoch(epoch: tf.Tensor) -> tf.data.Dataset:
        indices = tf.numpy_function(share, [epoch], tf.int64, stateful=False)
        indices = tf.data.Dataset.from_tensor_slices(tf.ensure_shape(indices, (None,)))
        return tf.data.Dataset.zip(tf.data.Dataset.from_tensors(epoch).repeat(), indices)

    endless = tf.data.Dataset.range(first_epoch, np.iinfo("int64").max)
    return endless.flat_map(tf.autograph.experimental.do_not_convert(of_epoch))


def _pair_sizes(count: int) -> list[int]:
    return [2] * (count // 2) + [1] * (count % 2)


def _finished(dataset: tf.data.Dataset) -> tf.data.Dataset:
    """Returns batches, images first, in Keras's data format, prefetched."""

    def transpose(images, *others):
        return tf.transpose(images, (0, 3, 1, 2)), *others

    if keras.config.image_data_format() == "channels_first":
        dataset = dataset.map(tf.autograph.experimental.do_not_convert(transpose), num_parallel_calls=tf.data.AUTOTUNE)
    return untuned(dataset.prefetch(PREFETCHED_BATCHES), usual_threads())
