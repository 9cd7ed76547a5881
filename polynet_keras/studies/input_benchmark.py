"""What a training run waits for: files, decoding, or the network. Each measured alone, on this machine."""

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from polynet_keras.basics.tuning import untuned
from polynet_keras.data.decoding import Unreadable
from polynet_keras.data.examples import Examples
from polynet_keras.data.pipeline import reading
from polynet_keras.data.sampling import TrainingOrder
from polynet_keras.data.sources import open_source
from polynet_keras.training.recipes.recipe import Recipe
from polynet_keras.training.runs.preparation import compiled_model, preprocessing_of, training_data

CURES = {
    "disk": "the files come too slowly: `polynet records`, a local disk, or fewer and larger files",
    "decode": "decoding and augmentation are too slow: more cores, smaller files, --crop=random_resized, less --policy",
    "step": "the network is the slowest, as it should be: a faster device, a larger batch, or a smaller network",
}
"""By what a run waits for; docs/input.md says more."""

READ_AHEAD = 16
"""Files that are read at once when reading alone is measured."""


@dataclass(frozen=True)
class InputBenchmark:
    """Images a second that each part could do if it never waited for the others.

    Attributes:
        read: reading encoded images, in the order of training. What the system has in memory comes from there.
        decode: the whole input pipeline, reading included.
        step: training steps, from batches that are ready.
    """

    read: float
    decode: float
    step: float

    @property
    def bound(self) -> str:
        """What a run waits for: one of `CURES`. The pipeline runs beside the steps, and the slower one decides."""
        if self.step <= min(self.read, self.decode):
            return "step"
        # A pipeline as fast as its files can be read waits for them.
        return "disk" if self.decode > 0.8 * self.read else "decode"


def benchmark_input(recipe: Recipe, seconds: float = 5.0) -> InputBenchmark:
    """Measures the parts of a training run.

    Args:
        recipe: of the run.
        seconds: that each part is measured for, at least; once over the training images is enough.

    Raises:
        ValueError: the data cannot be read, or `seconds` is not above 0.
    """
    if not seconds > 0:
        raise ValueError(f"seconds={seconds} must be above 0")
    source = open_source(recipe.data, recipe.seed)
    unreadable = Unreadable(recipe.on_error)
    half = TrainingOrder(len(source.training), recipe.batch_size, recipe.seed).steps // 2
    batches = training_data(recipe, source, preprocessing_of(recipe, source), unreadable, None, first_step=half)
    with reading(unreadable):
        # First of all: what is read once may be in memory afterwards.
        read = _rate(iter(_encoded(source.training, recipe)), lambda batch: len(batch), seconds, batches.steps)
        iterator = iter(batches.dataset)
        images, labels = next(iterator)  # and the tracing of the pipeline is over
        decode = _rate(iterator, lambda batch: len(batch[0]), seconds, batches.steps)
    model = compiled_model(recipe, source, batches.steps)
    model.train_on_batch(images, labels)  # traces the step

    def steps():
        while True:
            model.train_on_batch(images, labels)
            yield images

    return InputBenchmark(read, decode, _rate(steps(), len, seconds, batches.steps))


def _encoded(examples: Examples, recipe: Recipe) -> tf.data.Dataset:
    order = TrainingOrder(len(examples), recipe.batch_size, recipe.seed)
    indices = tf.data.Dataset.from_tensor_slices(np.asarray(order.order(0)))
    encoded = indices.map(lambda index: tf.strings.length(examples.read(index)[0]), num_parallel_calls=READ_AHEAD)
    return untuned(encoded.batch(recipe.batch_size).repeat().prefetch(2), threads=READ_AHEAD)


def _rate(iterator, images_of: Callable, seconds: float, most: int) -> float:
    start, images = time.perf_counter(), 0
    for number, batch in enumerate(iterator, 1):
        images += int(images_of(batch))
        elapsed = time.perf_counter() - start
        if elapsed > seconds or (number >= most and elapsed > seconds / 10):
            break
    return images / elapsed
