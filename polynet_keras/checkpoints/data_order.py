"""The order in which `fit` sees its examples, and the same order for a resumed training.

A dataset with `shuffle(n, seed=S)` draws another order for each iterator over it: the first epoch's order is that of
the first iterator, and so on. If a training resumes in a later epoch, each shuffle first draws the orders of the epochs
before, with iterators that are not read.
"""

import weakref
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import keras
import tensorflow as tf
from absl import logging

from polynet_keras.basics import keras_internals
from polynet_keras.engine import internals

_drawn: "weakref.WeakKeyDictionary[tf.data.Dataset, int]" = weakref.WeakKeyDictionary()
"""The number of orders that each shuffle has drawn for `fit`: in a notebook the next `fit` may get a used dataset."""


@dataclass(frozen=True)
class _Shuffle:
    """A part of a tf.data dataset that draws an order.

    Attributes:
        dataset: the part, with its input.
        seed: two numbers; [0, 0] if it draws its own.
        when_read: whether it draws when an iterator is first read, not when the iterator is made. So does a shuffle
            before another shuffle.
        repeats: whether one iterator draws several orders.
    """

    dataset: Any
    seed: list[int]
    when_read: bool
    repeats: bool


class DataOrder:
    """The iterators that `fit` makes over its data.

    Args:
        epoch_iterator: Keras's iterator, of a call of `fit` that has not begun to iterate.

    Attributes:
        latest: the newest iterator.
        made: the number of iterators made so far, including those of earlier processes.
        read: the number of these iterators that were read.
    """

    def __init__(self, epoch_iterator):
        self._epochs = epoch_iterator
        self._data = keras_internals.source_of_data(epoch_iterator)
        # Keras's iterators on JAX are generators, which begin with their first batch.
        lazy = keras.backend.backend() == "jax"
        self._shuffles = list(_shuffles(keras_internals.dataset_of(epoch_iterator), when_read=lazy))
        self.latest: Any = None
        self.made = max((_drawn.get(s.dataset, 0) for s in self._shuffles if not s.when_read), default=0)
        self.read = max((_drawn.get(s.dataset, 0) for s in self._shuffles if s.when_read), default=0)
        keras_internals.replace_data(epoch_iterator, self)

    @property
    def element_spec(self):
        return self._data().element_spec

    def __iter__(self):
        self.made += 1
        self._note()
        self.latest = iter(self._data())
        return self.latest

    def begin_to_read(self) -> None:
        """Call this when an iterator is read for the first time."""
        self.read += 1
        self._note()

    def _note(self) -> None:
        for shuffle in self._shuffles:
            _drawn[shuffle.dataset] = self.read if shuffle.when_read else self.made

    @property
    def begins_anew(self) -> bool:
        """Whether the next epoch makes its own iterator."""
        return self._epochs.steps_per_epoch is None or keras_internals.iterator_under_way(self._epochs) is None

    @property
    def seeds(self) -> list[list[int]]:
        """Returns the seeds of the shuffles of a tf.data dataset; [0, 0] for a shuffle that draws its own."""
        return [shuffle.seed for shuffle in self._shuffles]

    def check(self, validation_data: Any) -> None:
        """Warns if a resumed training cannot get the same order.

        Args:
            validation_data: the validation data of the same call of `fit`.
        """
        what = self._random_order()
        validated = [id(shuffle.dataset) for shuffle in _shuffles(validation_data)]
        if any(id(shuffle.dataset) in validated for shuffle in self._shuffles):
            what = (
                "validation reads from the dataset that is shuffled for training, write .take(n) and .skip(n) before it"
            )
        if what:
            logging.warning(
                "%s: a training that resumes in the middle of an epoch will see some of its examples twice and others "
                "not at all",
                what,
            )

    def go_on(self, made: int, read: int, epochs: int, seeds: list[list[int]]) -> None:
        """Puts the data into the order after the epochs before.

        Args:
            made: the number of iterators before the one that the next step reads.
            read: the number of these iterators that were read.
            epochs: the number of completed epochs.
            seeds: the seeds of the data at the checkpoint.
        """
        if seeds != self.seeds:
            logging.warning(
                "the data are shuffled with other seeds than before the checkpoint: some examples come twice and "
                "others not at all. Give every shuffle a seed, as in ds.shuffle(1000, seed=0) or "
                "image_dataset_from_directory(..., seed=0)"
            )
        dataset = keras_internals.py_dataset_of(self._epochs)
        for _ in range(epochs if dataset is not None else 0):
            dataset.on_epoch_begin()
            dataset.on_epoch_end()
        used = False
        for shuffle in self._shuffles:
            missing = (read if shuffle.when_read else made) - _drawn.get(shuffle.dataset, 0)
            used |= missing < 0
            for _ in range(missing):
                iter(shuffle.dataset)
        if used:
            logging.warning(
                "the dataset was iterated over more often than when the checkpoint was written: its examples come in "
                "another order. Make a new dataset before fit()"
            )
        self.made, self.read = max(self.made, made), max(self.read, read)
        self._note()

    def _random_order(self) -> str:
        """Returns the source of an order that cannot be repeated, and the code to write instead; empty if none is."""
        shuffles = keras_internals.keras_shuffles(self._epochs)
        if [0, 0] in self.seeds or _draws_inside(keras_internals.dataset_of(self._epochs)):
            return (
                "the dataset is shuffled without a seed, write .shuffle(n, seed=0), sample_from_datasets(..., seed=0)"
            )
        if any(shuffle.repeats for shuffle in self._shuffles):
            return "the dataset repeats what it shuffles, write .repeat(n) before .shuffle(...)"
        if keras_internals.py_dataset_of(self._epochs) is not None and shuffles:
            return (
                "fit(shuffle=True) shuffles a PyDataset with Python's own generator, write fit(shuffle=False) and let "
                "its on_epoch_end() shuffle with a seed"
            )
        if shuffles and keras.backend.backend() == "jax":
            return (
                "on JAX fit(shuffle=True) shuffles arrays with NumPy's global generator, write "
                "tf.data.Dataset.from_tensor_slices((x, y)).shuffle(len(x), seed=0).batch(n)"
            )
        if shuffles and internals.global_seed() is None:
            return (
                "fit(shuffle=True) shuffles arrays without a seed, call keras.utils.set_random_seed(0) first, or write "
                "tf.data.Dataset.from_tensor_slices((x, y)).shuffle(len(x), seed=0).batch(n)"
            )
        sampler = keras_internals.sampler_of(self._epochs)
        if type(sampler).__name__ in ("RandomSampler", "WeightedRandomSampler"):
            return "the DataLoader shuffles, write one with shuffle=False, or a tf.data.Dataset with a seed"
        return ""


def _shuffles(dataset: Any, when_read: bool = False, repeats: bool = False) -> Iterator[_Shuffle]:
    """Yields the parts of a tf.data dataset that draw an order, the last one first.

    A shuffle before a cache draws once. The resumed process draws the same order again.
    """
    if not isinstance(dataset, tf.data.Dataset) or internals.is_cache(dataset):
        return
    seed, times = internals.seeds_of(dataset), internals.repeats_of(dataset)
    if seed is not None:
        yield _Shuffle(dataset, seed, when_read, repeats)
        when_read = True
    if times is not None:
        when_read, repeats = True, repeats or times > 1
    for number, part in enumerate(internals.parts_of(dataset)):
        later = number > 0 and internals.is_concatenation(dataset)
        yield from _shuffles(part, when_read or later, repeats)


def _draws_inside(dataset: Any) -> bool:
    """Whether a function of a tf.data dataset, for example of `interleave` or `flat_map`, shuffles without a seed."""
    if not isinstance(dataset, tf.data.Dataset):
        return False
    for graph in internals.graphs_of(dataset):
        constants = {op.outputs[0].ref(): op for op in graph.get_operations() if op.type == "Const"}
        for op in graph.get_operations():
            seeds = list(op.inputs)[2:4] if op.type.startswith("ShuffleDataset") else []
            values = [tf.get_static_value(seed) for seed in seeds if seed.ref() in constants]
            if values == [0, 0]:
                return True
    return any(_draws_inside(part) for part in internals.parts_of(dataset))
