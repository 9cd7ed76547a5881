"""What a training run waits for: files, decoding, or the network. Each measured alone, on this machine."""

import contextlib
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
import tensorflow as tf

from polynet_keras.basics.checks import check_number
from polynet_keras.basics.news import tell
from polynet_keras.basics.tuning import untuned
from polynet_keras.data.examples import Examples, Source
from polynet_keras.data.inventory import look_at
from polynet_keras.data.pipeline import Batches
from polynet_keras.data.records.shrinking import Shrinking
from polynet_keras.data.sampling import TrainingOrder
from polynet_keras.data.sources import open_source
from polynet_keras.data.unreadable import Unreadable, reading
from polynet_keras.training.recipes.recipe import Recipe
from polynet_keras.training.runs.preparation import compiled_model, preprocessing_of, training_data
from polynet_keras.training.runs.progress import tell_of_compilation

CURES = {
    "disk": "the files come too slowly: `polynet records`, a local disk, or fewer and larger files",
    "decode": "decoding and augmentation are too slow: more cores, smaller files, --crop=random_resized, less --policy",
    "step": "the network is the slowest, as it should be: a faster device, a larger batch, or a smaller network",
}
"""By what a run waits for; docs/howto/profile_input.md says more."""

LARGE = 2.0
"""Times the side that images are resized to, from which on their shorter side has more than is needed."""
ENOUGH = 1.5
"""Times that side, for the longer side of an image that is shrunk once: of 4:3, the shorter one still has more."""
SAMPLE = 64
"""Images whose headers are looked at, and that are shrunk to measure what it gains."""

READ_AHEAD = 16
"""Files that are read at once when reading alone is measured."""


@dataclass(frozen=True)
class InputBenchmark:
    """Images a second that each part could do if it never waited for the others.

    Attributes:
        read: reading encoded images, in the order of training. What the system has in memory comes from there.
        decode: the whole input pipeline, reading included.
        step: training steps, from batches that are ready.
        size: width and height, in pixels, of the median image.
        smaller: the whole input pipeline where less is decoded of large images, by what does it; nothing where they
            are not large.
    """

    read: float
    decode: float
    step: float
    size: tuple[int, int] = (0, 0)
    smaller: dict[str, float] = field(default_factory=dict)

    @property
    def bound(self) -> str:
        """What a run waits for: one of `CURES`. The pipeline runs beside the steps, and the slower one decides."""
        if self.step <= min(self.read, self.decode):
            return "step"
        # A pipeline as fast as its files can be read waits for them.
        return "disk" if self.decode > 0.8 * self.read else "decode"


def benchmark_input(recipe: Recipe, seconds: float = 5.0) -> InputBenchmark:
    """Measures the parts of a training run, and shows the first results before the slow ones.

    Args:
        recipe: of the run.
        seconds: that each part is measured for, at least; once over the training images is enough.

    Raises:
        ValueError: the data cannot be read, or `seconds` is not above 0.

    Examples:
        >>> from polynet_keras.training import Recipe
        >>> measured = benchmark_input(Recipe(structure="1 x [ir] | 1 x [ir] | 1 x [ir]", width=0.1), seconds=0.1)
        >>> measured.bound in ("disk", "decode", "step")
        True
    """
    check_number("seconds", seconds, above=0)
    source = open_source(recipe.data, recipe.seed, recipe.layout, recipe.validation_share)
    unreadable = Unreadable(recipe.on_error)
    half = TrainingOrder(len(source.training), recipe.batch_size, recipe.seed).steps // 2
    batches = training_data(recipe, source, preprocessing_of(recipe, source), unreadable, None, first_step=half)
    with reading(unreadable):
        # First: a file that was read once may be in memory afterwards.
        read = _rate(iter(_encoded(source.training, recipe)), lambda batch: len(batch), seconds, batches.steps)
        tell("read: %.1f images/s", read)
        decode, first = _pipeline_rate(batches, seconds)
        tell("decode: %.1f images/s", decode)
        size = _median_size(source.training)
        smaller = _smaller(recipe, source, unreadable, seconds) if min(size) >= LARGE * recipe.resize_size else {}
    model = compiled_model(recipe, source, batches.steps)
    tell_of_compilation()
    model.train_on_batch(*first)

    def steps():
        while True:
            model.train_on_batch(*first)
            yield first[0]

    return InputBenchmark(read, decode, _rate(steps(), len, seconds, batches.steps), size, smaller)


def _pipeline_rate(batches: Batches, seconds: float) -> tuple[float, tuple[tf.Tensor, ...]]:
    """Images a second, and a batch."""
    iterator = iter(batches.dataset)
    batch = next(iterator)  # and the tracing of the pipeline is over
    return _rate(iterator, lambda batch: len(batch[0]), seconds, batches.steps), batch


def _sample(examples: Examples) -> Examples:
    chosen = np.sort(np.random.default_rng(0).permutation(len(examples))[:SAMPLE])
    return examples.subset(chosen, examples.name)


def _median_size(examples: Examples) -> tuple[int, int]:
    sizes = look_at([_sample(examples)]).sizes
    width, height = sizes[np.argsort(sizes.prod(axis=1))[len(sizes) // 2]] if len(sizes) else (0, 0)
    return int(width), int(height)


def _smaller(recipe: Recipe, source: Source, unreadable: Unreadable, seconds: float) -> dict[str, float]:
    """Images a second where large ones are decoded at a smaller scale, and where they were shrunk once."""

    def rate(recipe: Recipe, source: Source) -> float:
        batches = training_data(recipe, source, preprocessing_of(recipe, source), unreadable, None, first_step=0)
        return _pipeline_rate(batches, seconds)[0]

    found = {}
    if recipe.decoding == "exact":
        found["--decoding=scaled"] = rate(recipe.replaced({"decoding": "scaled"}), source)
    max_side = 100 * math.ceil(ENOUGH * recipe.resize_size / 100)
    shrunk = _shrunk(_sample(source.training), Shrinking(max_side))
    if len(shrunk):
        found[f"polynet records --max_side={max_side}"] = rate(recipe, replace(source, training=shrunk))
    return found


def _shrunk(examples: Examples, shrinking: Shrinking) -> Examples:
    """The examples that can be read, shrunk, in memory."""
    files, labels = [], []
    for index in range(len(examples)):
        with contextlib.suppress(ValueError):  # the pipeline has reported it, or left it out
            files.append(shrinking(examples.encoded(index), examples.shown_name(index))[0])
            labels.append(examples.label(index))
    table, label_of = tf.constant(files, tf.string), tf.constant(labels, tf.int64)
    return replace(
        examples,
        count=len(files),
        read=lambda index: (table[index], label_of[index]),
        labels=np.array(labels, "int64"),
        file_sizes=None,
    )


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
