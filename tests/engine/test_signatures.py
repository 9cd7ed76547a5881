"""What `help()` and an IDE show of a model's methods, and what data without a batch is told."""

import inspect

import keras
import numpy as np
import pytest

from polynet_keras.engine.network import Network
from tests.reference import few_layers

METHODS = ("fit", "evaluate", "predict", "train_on_batch", "test_on_batch", "predict_on_batch")
on_tensorflow = pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="TensorFlow compiles its own way")


@pytest.mark.parametrize("method", METHODS)
def test_methods_show_kerass_signature_and_documentation(method):
    ours, theirs = getattr(Network, method), getattr(keras.Model, method)
    assert inspect.signature(ours) == inspect.signature(theirs)
    assert "x" in inspect.signature(ours).parameters
    document = inspect.getdoc(vars(keras.src.trainers.trainer.Trainer)[method])
    assert inspect.getdoc(ours) == document
    assert len(document) > 100


@pytest.fixture
def model():
    model = few_layers()
    model.compile("sgd", "sparse_categorical_crossentropy")
    return model


class NoBatch(keras.utils.PyDataset):
    def __len__(self):
        return 0

    def __getitem__(self, index):
        raise IndexError(index)


def arrays():
    return np.zeros((0, 12, 12, 3), "float32"), np.zeros(0, "int32")


def datasets(kind):
    import tensorflow as tf

    one = tf.data.Dataset.from_tensors((np.zeros((12, 12, 3), "float32"), np.zeros((), "int32")))
    return {
        "none": lambda: one.take(0).batch(2),
        "dropped": lambda: one.batch(2, drop_remainder=True),
        "filtered": lambda: one.filter(lambda x, y: y > 0).batch(2),
    }[kind]()


@pytest.mark.parametrize("method", ["fit", "evaluate", "predict"])
@pytest.mark.parametrize(
    "kind",
    ["arrays", "PyDataset", *(pytest.param(kind, marks=on_tensorflow) for kind in ("none", "dropped", "filtered"))],
)
def test_data_without_a_batch_is_an_error(model, method, kind):
    if kind == "arrays":
        x, y = arrays()
    else:
        x, y = NoBatch() if kind == "PyDataset" else datasets(kind), None
    arguments = {"x": x} if method == "predict" else {"x": x, "y": y}
    with pytest.raises(ValueError, match=rf"^{method}\(\) got no batch of x: the data is empty, a filter removed all"):
        getattr(model, method)(**arguments, verbose=0)


@on_tensorflow
@pytest.mark.parametrize("method", ["fit", "evaluate"])
def test_distributed_data_may_be_empty_or_not(method):
    import tensorflow as tf

    strategy = tf.distribute.MirroredStrategy(["CPU:0"])
    with strategy.scope():
        model = few_layers()
        model.compile("sgd", "sparse_categorical_crossentropy")
    rows = tf.data.Dataset.from_tensors((np.zeros((12, 12, 3), "float32"), np.zeros((), "int32"))).batch(2)
    for distributed in (
        strategy.experimental_distribute_dataset(rows),
        strategy.distribute_datasets_from_function(lambda context: rows),
    ):
        getattr(model, method)(distributed, verbose=0)
    with pytest.raises(ValueError, match=rf"^{method}\(\) got no batch of x"):
        getattr(model, method)(strategy.experimental_distribute_dataset(rows.take(0)), verbose=0)


def test_validation_data_without_a_batch_is_an_error_before_training(model):
    x, y = np.zeros((2, 12, 12, 3), "float32"), np.zeros(2, "int32")
    before = model.get_weights()
    with pytest.raises(ValueError, match=r"fit\(\) got no batch of validation_data"):
        model.fit(x, y, validation_data=arrays(), verbose=0)
    for a, b in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(a, b)
    assert model.fit(x, y, epochs=0, verbose=0).history == {}  # nothing was asked for


@on_tensorflow
def test_a_step_of_ones_own_may_return_nothing():
    class Own(Network):
        def train_step(self, data):
            return {}

    model = few_layers(kind=Own)
    model.compile("sgd")
    assert model.fit(np.zeros((2, 12, 12, 3), "float32"), verbose=0).history == {}
