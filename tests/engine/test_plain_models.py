"""Keras's own models where several workers train. Here one process stands for them; `scenarios.py` has real ones."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from polynet_keras.engine import plain_models
from polynet_keras.engine.distributed_model import DistributedTraining
from polynet_keras.engine.plain_models import CALLED_BY_KERAS, CALLED_BY_USERS, USED_BY_STEPS, train_plain_models
from tests.reference import few_layers

X, Y = np.random.default_rng(0).normal(size=(2, 7, 3)).astype("float32")


@pytest.fixture
def strategy(monkeypatch):
    """Of what stands for several workers, while Keras's models train as they do there."""
    names = (*USED_BY_STEPS, *CALLED_BY_USERS, *CALLED_BY_KERAS, "predict_on_batch")
    assert not hasattr(keras.Model, USED_BY_STEPS[0])
    before = {name: vars(keras.Model)[name] for name in names if name in vars(keras.Model)}
    several = tf.distribute.MirroredStrategy(["CPU:0"])
    monkeypatch.setattr(plain_models, "worker_count", lambda strategy: 2 if strategy is several else 1)
    train_plain_models(few_layers(), DistributedTraining)
    yield several
    for name in names:
        delattr(keras.Model, name)
    for name, method in before.items():
        setattr(keras.Model, name, method)


def model_of(strategy=None):
    keras.utils.set_random_seed(0)
    with (strategy or tf.distribute.get_strategy()).scope():
        model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(3)])
        model.compile(keras.optimizers.SGD(0.1), "mse")
    return model


def makers(model):
    functions = (model.train_function, model.test_function, model.predict_function)
    return [(getattr(f, "__module__", "") or type(f).__module__).partition(".")[0] for f in functions]


@pytest.mark.slow
def test_a_model_of_kerass_trains_as_ours_do(strategy):
    ours, theirs = model_of(strategy), model_of()
    for model in (ours, theirs):
        model.fit(X, Y, batch_size=4, epochs=2, shuffle=False, verbose=0, validation_data=(X[:3], Y[:3]))
    for name, values in theirs.history.history.items():
        np.testing.assert_allclose(ours.history.history[name], values, rtol=1e-5)
    assert ours.evaluate(X, Y, verbose=0) == pytest.approx(theirs.evaluate(X, Y, verbose=0), rel=1e-5)
    np.testing.assert_allclose(ours.predict(X, verbose=0), theirs.predict(X, verbose=0), rtol=1e-5)
    assert makers(ours) == ["polynet_keras"] * 3
    assert "polynet_keras" not in makers(theirs)


def test_a_workers_share_of_a_batch_is_predicted(strategy, monkeypatch):
    model = model_of(strategy)
    monkeypatch.setattr(plain_models, "share_of_worker", lambda x, among: x[:2] if among is strategy else None)
    assert model.predict_on_batch(X).shape == (2, 3)
    assert model_of().predict_on_batch(X).shape == (7, 3)


def test_a_call_that_would_wait_for_ever_is_refused(strategy):
    model = model_of(strategy)
    with strategy.scope(), pytest.raises(ValueError, match=r"call model.fit\(\) outside of strategy.scope"):
        model.fit(X, Y)


def test_methods_are_replaced_once_and_keep_their_names(strategy):
    methods = [getattr(keras.Model, name) for name in CALLED_BY_USERS]
    train_plain_models(few_layers(), DistributedTraining)
    assert [getattr(keras.Model, name) for name in CALLED_BY_USERS] == methods
    assert [method.__name__ for method in methods] == list(CALLED_BY_USERS)


def test_a_keras_without_the_internals_is_refused(monkeypatch):
    monkeypatch.setattr("polynet_keras.basics.keras_internals.STEP_PARTS", ("_of_another_keras",))
    with pytest.raises(RuntimeError, match="lack _of_another_keras, which"):
        train_plain_models(few_layers(), DistributedTraining)
    assert not hasattr(keras.Model, USED_BY_STEPS[0])
