"""Which data is known to have no batch, before it is read."""

from types import SimpleNamespace

import keras
import numpy as np
import pytest
import tensorflow as tf

from polynet_keras.engine.empty_data import refuse_empty

NOTHING, SOMETHING = np.zeros((0, 3)), np.zeros((2, 0))


class Batches(keras.utils.PyDataset):
    def __init__(self, count):
        super().__init__()
        self.count = count

    def __len__(self):
        return self.count  # of None, Python raises a TypeError

    def __getitem__(self, index):
        return SOMETHING


class Loader:
    """What Keras takes for PyTorch's DataLoader by; of an iterable dataset, that has no length."""

    batch_sampler = None

    def __init__(self, length):
        self.length = length

    def __iter__(self):
        return iter(())

    def __len__(self):
        if isinstance(self.length, int):
            return self.length
        raise self.length


class Unknown:
    """Iterable, of a length that may say something else than the number of batches."""

    def __iter__(self):
        return iter((SOMETHING,))

    def __len__(self):
        return 0


def numbers(count):
    return tf.data.Dataset.range(count)


DATA = {
    "array": (NOTHING, SOMETHING),
    "list": ([NOTHING, NOTHING], [NOTHING, SOMETHING]),
    "dictionary": ({"a": NOTHING}, {"a": SOMETHING}),
    "vector": (np.zeros(0), np.zeros(1)),
    "dataset": (numbers(0), numbers(1)),
    "dataset of unknown length": (numbers(3).take(0), numbers(3).filter(lambda x: x > 5)),
    "endless dataset": (numbers(3).repeat(0), numbers(3).repeat()),
    "distributed dataset": (SimpleNamespace(cardinality=tf.constant(0)), SimpleNamespace(cardinality=tf.constant(2))),
    "PyDataset": (Batches(0), Batches(1)),
    "endless PyDataset": (Batches(0), Batches(None)),
    "DataLoader": (Loader(0), Loader(1)),
    "DataLoader without a length": (Loader(0), Loader(TypeError())),
    "DataLoader whose sampler has none": (Loader(0), Loader(NotImplementedError())),
}
"""By kind: some without a batch, and some that may have one."""


@pytest.mark.parametrize(("empty", "other"), DATA.values(), ids=DATA)
def test_what_is_known_to_be_empty(empty, other):
    refuse_empty("fit", {"x": other}, ("x",))
    with pytest.raises(ValueError, match=r"^fit\(\) got no batch of x: the data is empty, a filter removed all of it"):
        refuse_empty("fit", {"x": empty}, ("x",))


@pytest.mark.parametrize("data", [None, [], {}, np.zeros(()), 3.0, [NOTHING, None, 3], Unknown(), (x for x in ())])
def test_what_is_not_known_to_be_empty(data):
    refuse_empty("fit", {"x": data}, ("x",))


def test_each_argument_that_is_data_is_looked_at():
    refuse_empty("evaluate", {"x": SOMETHING, "sample_weight": NOTHING}, ("x", "y"))
    with pytest.raises(ValueError, match=r"^evaluate\(\) got no batch of y: "):
        refuse_empty("evaluate", {"x": SOMETHING, "y": NOTHING}, ("x", "y"))
