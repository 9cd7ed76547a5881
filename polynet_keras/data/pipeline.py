"""From a source's examples to the batches that `fit` and `evaluate` take, as tf.data datasets."""

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
"""One that is ready for `fit`, and one that is being made."""


@dataclass(frozen=True)
class Batches:
    """A dataset of batches, and how many there are.

    Attributes:
        dataset: of batches.
        steps: batches of an epoch.
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
    """Shuffled batches of augmented images, without end; `fit` takes them with `steps_per_epoch=batches.steps`.

    Order, crops and distortions of an epoch are functions of the seed, the epoch and the example: not of the
    number of threads or workers, nor of the step that is begun with. An image that is skipped is replaced by the next
    one in the source that can be read, so that batches stay full; where classes are sampled equally often, by the next
    one of its class, unless the class has none.

    Args:
        examples: to train on.
        preprocessing: the protocol of the network.
        batch_size: of all workers together.
        seed: of order and augmentation.
        augmentation: by default the poster's random crop alone.
        sampling: `"uniform"`: an epoch has each image once; `"balanced"`: it has as many images, each class as often as
            every other (`data.sampling`). An image that it has twice is augmented anew.
        first_step: global step to begin with, counted from the first epoch's first.
        workers: how many share the batches.
        worker: which of them this is, from 0.
        replicas: devices of a worker: each gets a batch of its own at every step, one after the other.
        unreadable: takes the images that cannot be read while the dataset is iterated; by default they are errors.

    Returns:
        Batches of (images, labels): float32 (batch, size, size, channels), or (batch, channels, size, size) under the
        data format channels_first; int64 (batch,), or float32 (batch, classes) where images are mixed. The last batch
        of an epoch holds what is left.

    Raises:
        ValueError: arguments out of range or that do not fit each other.
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
    """The order in which examples are trained on; arguments as of `training_batches` and `TrainingOrder`."""
    check_choice("sampling", sampling, SAMPLINGS)
    labels = examples.labelled(on_error).labels if sampling == "balanced" else None
    return TrainingOrder(len(examples), batch_size, seed, workers, worker, replicas, group, labels, repeats)


def drawn_batches(order: TrainingOrder, first_step: int) -> tf.data.Dataset:
    """What a worker draws for each of its batches, without end, from a step on: (epochs, draws), int64 (batch,)."""
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
    """Chosen examples in a given order, each once.

    Args:
        examples: among which they are.
        preprocessing: the protocol of the network.
        indices: int64 array (count,), of the examples.
        sizes: of the batches, one after the other; they add up to `count`.
        unreadable: takes the images that cannot be read.
        epochs: int64 array (count,): images are those that `training_batches` has in these epochs. By default they are
            centre crops, as `evaluation_batches` has them.
        seed: as of `training_batches`, where there are epochs.
        augmentation: likewise.
        labels: likewise, as of `TrainingOrder`.

    Returns:
        Batches of (images, labels, valid), as `evaluation_batches` has them. With epochs, the place of an image that is
        skipped holds the image and the label that replace it in training, and is not valid.
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
    """Full batches of centre crops in the source's order: what `Preprocessing` gives, image by image.

    Every worker has as many batches as every other, and all examples are in them once: the places that are left, and
    those of skipped images, hold zeros and are marked.

    Args:
        examples: to evaluate.
        preprocessing: the protocol.
        batch_size: of one worker.
        workers: how many share the examples.
        worker: which of them this is, from 0.
        unreadable: takes the images that cannot be read while the dataset is iterated; by default they are errors.

    Returns:
        Batches of (images, labels, indices, valid): images as `training_batches` has them, int64 (batch,) twice, and
        whether the place holds an example, bool (batch,).
    """
    share = evaluation_share(len(examples), batch_size, workers, worker)
    example = centre_crop(examples, preprocessing, unreadable or Unreadable())
    dataset = tf.data.Dataset.from_tensor_slices(share).map(
        tf.autograph.experimental.do_not_convert(example), num_parallel_calls=tf.data.AUTOTUNE
    )
    return Batches(_finished(dataset.batch(batch_size, drop_remainder=True)), len(share) // batch_size)


def validation_data(batches: Batches) -> tf.data.Dataset:
    """Evaluation batches as `fit` takes them, (images, labels), without the places that hold no example."""

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
    """A worker's share of the examples as whole images, in batches of one: (uint8 (1, height, width, channels), label,
    index, whether it could be read); arguments as of `evaluation_batches` and `read_image`."""
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
    """Known to have no end, a distributed dataset needs not ask all workers at every step whether theirs has."""
    return dataset.apply(tf.data.experimental.assert_cardinality(tf.data.INFINITE_CARDINALITY))


def _endless(order: TrainingOrder, first_epoch: int, first_step: int) -> tf.data.Dataset:
    """(epoch, draw) of a worker's examples, from a step of an epoch on."""

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
    """Batches, images first, as Keras's data format wants them, made ahead of their use."""

    def transpose(images, *others):
        return tf.transpose(images, (0, 3, 1, 2)), *others

    if keras.config.image_data_format() == "channels_first":
        dataset = dataset.map(tf.autograph.experimental.do_not_convert(transpose), num_parallel_calls=tf.data.AUTOTUNE)
    return untuned(dataset.prefetch(PREFETCHED_BATCHES), usual_threads())
