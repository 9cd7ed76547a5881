"""From a source's examples to the batches that `fit` and `evaluate` take, as tf.data datasets."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

import keras
import numpy as np
import tensorflow as tf

from polynet_keras.basics.tensorflow_errors import plain_message
from polynet_keras.basics.tuning import untuned, usual_threads
from polynet_keras.data.augmentation import (
    Augmentation,
    Distortion,
    Mixing,
    example_seed,
    random_crop,
    random_resized_box,
)
from polynet_keras.data.decoding import Unreadable, decode_region, whole
from polynet_keras.data.examples import Examples
from polynet_keras.data.protocol import Preprocessing
from polynet_keras.data.resizing import normalizer, resize, resize_crop
from polynet_keras.data.sampling import TrainingOrder, evaluation_share

ATTEMPTS = 100
"""So many images in a row that cannot be read are no accident: then skipping ends."""

PREFETCHED_BATCHES = 2
"""One that is ready for `fit`, and one that is being made."""

READING_ERRORS = (tf.errors.NotFoundError, tf.errors.DataLossError, tf.errors.PermissionDeniedError)
"""What a file that vanished or a record that was damaged raises; the message names it."""


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
    first_step: int = 0,
    workers: int = 1,
    worker: int = 0,
    replicas: int = 1,
    unreadable: Unreadable | None = None,
) -> Batches:
    """Shuffled batches of augmented images, without end; `fit` takes them with `steps_per_epoch=batches.steps`.

    Order, crops and distortions of an epoch are functions of the seed, the epoch and the example: not of the
    number of threads or workers, nor of the step that is begun with. An image that is skipped is replaced by the next
    one in the source that can be read, so that batches stay full.

    Args:
        examples: to train on.
        preprocessing: the protocol of the network.
        batch_size: of all workers together.
        seed: of order and augmentation.
        augmentation: by default the poster's random crop alone.
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
    group = 2 if augmentation.mixes else 1
    order = TrainingOrder(len(examples), batch_size, seed, workers, worker, replicas, group)
    unreadable = unreadable or Unreadable()
    distort = Distortion(augmentation, examples.channels)
    normalize = normalizer(preprocessing)

    def example(epoch: tf.Tensor, index: tf.Tensor):
        drawn = example_seed(seed, epoch, index)
        image, label = _readable(examples, index, preprocessing, augmentation, drawn, unreadable)
        return normalize(distort(image, drawn)), label, drawn

    dataset = _endless(order, *divmod(first_step, order.steps)).map(
        tf.autograph.experimental.do_not_convert(example), num_parallel_calls=tf.data.AUTOTUNE
    )
    dataset = dataset.batch(1)
    # From the step that is begun with, around: the sizes of one epoch after the other.
    sizes = np.roll(order.sizes, -(first_step % order.steps), axis=0).ravel()
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
    # Known to have no end, a distributed dataset needs not ask all workers at every step whether theirs has.
    endless = dataset.rebatch(sizes).apply(tf.data.experimental.assert_cardinality(tf.data.INFINITE_CARDINALITY))
    return Batches(_finished(endless), order.steps)


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
    unreadable = unreadable or Unreadable()
    size, channels = preprocessing.image_size, preprocessing.channels
    normalize = normalizer(preprocessing)

    def nothing():
        return tf.zeros((size, size, channels)), tf.zeros((), tf.int64), tf.constant(False)

    def cropped(image: tf.Tensor, index: tf.Tensor):
        resized, made = _resized(image, index, examples, preprocessing, unreadable)

        def crop():
            height, width = tf.unstack(tf.shape(resized)[:2])
            top, left, bottom, right = preprocessing.crop_box(height, width)
            return tf.ensure_shape(resized[top:bottom, left:right], (size, size, channels))

        return tf.cond(made, crop, lambda: tf.zeros((size, size, channels))), made

    def example(index: tf.Tensor):
        def read():
            crop, label, readable = decode_region(index, examples, unreadable, finish=cropped)
            return tf.cond(
                readable, lambda: (normalize(tf.ensure_shape(crop, (size, size, channels))), label, readable), nothing
            )

        image, label, valid = tf.cond(index >= 0, read, nothing)
        return image, label, index, valid

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
    examples: Examples, *, workers: int = 1, worker: int = 0, unreadable: Unreadable | None = None
) -> Batches:
    """A worker's share of the examples as whole images, in batches of one: (uint8 (1, height, width, channels), label,
    index, whether it could be read); arguments as of `evaluation_batches`."""
    share = evaluation_share(len(examples), 1, workers, worker)
    share = share[share >= 0]
    unreadable = unreadable or Unreadable()

    def example(index: tf.Tensor):
        image, label, readable = decode_region(index, examples, unreadable)
        return image, label, index, readable

    # Whole photographs are large: two at a time, and two that wait.
    dataset = tf.data.Dataset.from_tensor_slices(share).map(
        tf.autograph.experimental.do_not_convert(example), num_parallel_calls=2
    )
    return Batches(untuned(dataset.batch(1).prefetch(2), usual_threads()), len(share))


@contextlib.contextmanager
def reading(unreadable: Unreadable) -> Iterator[None]:
    """Says which image or file it was where TensorFlow's error of a pipeline says an operation.

    Raises:
        ValueError: in place of an error of reading.
        OSError: likewise, where the storage failed.
    """
    try:
        yield
    except tf.errors.OpError as error:
        if unreadable.error is not None:
            raise unreadable.error from None
        if isinstance(error, READING_ERRORS) or "assertion failed" in error.message:
            raise ValueError(plain_message(error)) from None
        raise


def _endless(order: TrainingOrder, first_epoch: int, first_step: int) -> tf.data.Dataset:
    """(epoch, index) of a worker's examples, from a step of an epoch on."""

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


def _readable(
    examples: Examples,
    index: tf.Tensor,
    preprocessing: Preprocessing,
    augmentation: Augmentation,
    seed: tf.Tensor,
    unreadable: Unreadable,
) -> tuple[tf.Tensor, tf.Tensor]:
    """The crop of an example, or of the next one that can be read: float32 (size, size, channels), and its label."""
    size, channels = preprocessing.image_size, examples.channels

    def box(height: tf.Tensor, width: tf.Tensor, seed: tf.Tensor):
        return random_resized_box(height, width, seed)

    def resized_crop(image: tf.Tensor, index: tf.Tensor, seed: tf.Tensor):
        return resize_crop(image, size, preprocessing), tf.constant(True)

    def crop_of_resized(image: tf.Tensor, index: tf.Tensor, seed: tf.Tensor):
        resized, made = _resized(image, index, examples, preprocessing, unreadable)
        return tf.cond(made, lambda: random_crop(resized, size, seed), blank), made

    def attempt(index: tf.Tensor):
        if augmentation.crop == "random_resized":
            crop, label, readable = decode_region(index, examples, unreadable, box, resized_crop, (seed,))
        else:
            crop, label, readable = decode_region(
                index, examples, unreadable, lambda height, width, _: whole(height, width), crop_of_resized, (seed,)
            )
        cropped = tf.cond(readable, lambda: crop, blank)
        return tf.ensure_shape(cropped, (size, size, channels)), label, readable

    def blank() -> tf.Tensor:
        return tf.zeros((size, size, channels))

    image, label, readable = attempt(index)
    if unreadable.on_error == "error":
        return image, label

    def next_one(attempts, _image, _label, _readable):
        return attempts + 1, *attempt((index + attempts) % len(examples))

    _, image, label, readable = tf.while_loop(
        lambda attempts, _image, _label, readable: ~readable & (attempts < ATTEMPTS),
        next_one,
        (tf.constant(1, tf.int64), image, label, readable),
    )
    found = tf.debugging.Assert(readable, [f"{ATTEMPTS} images in a row cannot be read"])
    with tf.control_dependencies([found]):
        return tf.identity(image), label


def _resized(
    image: tf.Tensor, index: tf.Tensor, examples: Examples, preprocessing: Preprocessing, unreadable: Unreadable
) -> tuple[tf.Tensor, tf.Tensor]:
    """The image resized as the protocol says, float32 of 0 to 255, and whether it could be; if not, it is empty."""
    height, width = tf.unstack(tf.shape(image, tf.int64)[:2])
    high, wide, fits = preprocessing.resized_sides(height, width)
    if fits is True:
        return resize(image, (high, wide), preprocessing), tf.constant(True)

    def refuse(height: np.int64, width: np.int64, index: np.int64) -> np.ndarray:
        try:
            preprocessing.resized_shape(int(height), int(width))
        except ValueError as error:
            unreadable.add(int(index), ValueError(f"{examples.shown_name(int(index))}: {error}"))
        return np.zeros((0, 0, examples.channels), "float32")

    def refused() -> tf.Tensor:
        nothing = tf.numpy_function(refuse, [height, width, index], tf.float32, stateful=False)
        return tf.ensure_shape(nothing, (None, None, examples.channels))

    size = tf.cast(tf.stack([high, wide]), tf.int32)
    return tf.cond(fits, lambda: resize(image, size, preprocessing), refused), fits


def _finished(dataset: tf.data.Dataset) -> tf.data.Dataset:
    """Batches, images first, as Keras's data format wants them, made ahead of their use."""

    def transpose(images, *others):
        return tf.transpose(images, (0, 3, 1, 2)), *others

    if keras.config.image_data_format() == "channels_first":
        dataset = dataset.map(tf.autograph.experimental.do_not_convert(transpose), num_parallel_calls=tf.data.AUTOTUNE)
    return untuned(dataset.prefetch(PREFETCHED_BATCHES), usual_threads())
