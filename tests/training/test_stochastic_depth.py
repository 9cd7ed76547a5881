"""Adaptive stochastic depth: what it decides, that it survives a restart, and that nothing is traced anew."""

import csv
import json

import keras
import numpy as np
import pytest

from polynet_keras import PolyNet
from polynet_keras.checkpoints.callback_state import get_states, set_states
from polynet_keras.layers import StochasticResidualScaling
from polynet_keras.training import stochastic_depth
from polynet_keras.training.optimizers import RMSprop
from polynet_keras.training.stochastic_depth import AdaptiveStochasticDepth, set_drop_rate

STRUCTURE = "1 x [2-way] | 2 x [poly-2] | 1 x [ir]"


def net(**arguments):
    keras.utils.set_random_seed(0)
    shared = {"structure": STRUCTURE, "width": 0.0625, "residual_scale": 0.3, "input_shape": (75, 75, 1), "classes": 2}
    return PolyNet(weights=None, **{**shared, **arguments})


def sums(model):
    return [layer for layer in model.layers if isinstance(layer, StochasticResidualScaling)]


def survival(model):
    return [layer.survival_probability.numpy().tolist() for layer in sums(model)]


def one_unit():
    """A model of one residual unit, whose path of the input itself has the scale 0.4 and survives always."""
    inputs = keras.Input((3,))
    return keras.Model(inputs, StochasticResidualScaling(0.4, active=False)([inputs, inputs]))


def decisions(callback, gaps, metric="accuracy", model=None):
    """The drop rate of each epoch, of so many gaps between training and validation, and in the end."""
    callback.set_model(model or net())
    callback.on_train_begin()
    rates = []
    for epoch, gap in enumerate(gaps):
        sign = -1 if metric == "loss" else 1
        logs = {metric: 0.5 + sign * gap, f"val_{metric}": 0.5}
        callback.on_epoch_end(epoch, logs)
        assert logs["gap"] == pytest.approx(gap)
        rates.append(logs["drop_rate"])
    return [*rates, callback.drop_rate]


@pytest.mark.parametrize("metric", ["accuracy", "loss"])
def test_it_rises_in_steps_and_waits_a_window(metric):
    callback = AdaptiveStochasticDepth(metric, threshold=0.1, window=2, step=0.2, max_drop_rate=0.5)
    gaps = [0.0, 0.3, 0.3, 0.3, 0.3, 0.3, 0.3, 0.3]
    assert decisions(callback, gaps, metric) == [0, 0, 0, 0.2, 0.2, 0.4, 0.4, 0.5, 0.5]
    # Of units 0, 1/3, 2/3 and 1 of the way down.
    expected = [[1, 1], [1 - 0.5 / 3] * 2, [1 - 1 / 3] * 2, [0.5]]
    for found, wanted in zip(survival(callback.model), expected, strict=True):
        assert found == pytest.approx(wanted)
    assert all(bool(layer.active.numpy()) for layer in sums(callback.model))


def test_it_falls_when_the_net_underfits():
    callback = AdaptiveStochasticDepth(threshold=0.1, window=1, step=0.15, max_drop_rate=0.3)
    assert decisions(callback, [0.2, 0.2, 0.05, -0.01, -0.01, -0.01], model=one_unit()) == [
        0,
        0.15,
        0.3,
        0.3,
        0.15,
        0,
        0,
    ]
    assert not any(bool(layer.active.numpy()) for layer in sums(callback.model))


def test_it_falls_after_a_window_below_zero():
    """The last two epochs decide; between them and zero, or at zero, is nothing to fall for."""
    callback = AdaptiveStochasticDepth(threshold=0.1, window=2, step=0.1, max_drop_rate=0.3)
    gaps = [0.2, 0.2, 0.2, 0.2, -0.1, 0.05, -0.1, 0.0, -0.1, -0.1, -0.1, -0.1, -0.1, -0.1]
    rates = [0, 0, 0.1, 0.1, 0.2, 0.2, 0.2, 0.2, 0.2, 0.2, 0.1, 0.1, 0, 0, 0]
    assert decisions(callback, gaps, model=one_unit()) == rates


def test_sums_of_steps_come_back_to_zero():
    """In floating point 0.1 + 0.1 + 0.1 − 0.1 − 0.1 − 0.1 is 3e-17, at which paths would still be drawn."""
    callback = AdaptiveStochasticDepth(threshold=0.1, window=1, step=0.1, max_drop_rate=0.5)
    rates = decisions(callback, [0.2, 0.2, 0.2, -0.1, -0.1, -0.1], model=one_unit())
    assert rates == [0, 0.1, 0.2, 0.3, 0.2, 0.1, 0]
    assert not any(bool(layer.active.numpy()) for layer in sums(callback.model))


def test_what_the_class_says_of_its_defaults():
    """Three epochs above 0.05 for each step of 0.05, up to 0.25; the gap of accuracies."""
    gaps = [0.0501] * 20
    rates = [rate for rate in (0, 0.05, 0.1, 0.15, 0.2) for _ in range(3)] + [0.25] * 6
    assert decisions(AdaptiveStochasticDepth(), gaps, model=one_unit()) == rates
    assert decisions(AdaptiveStochasticDepth(), [0.0499] * 6, model=one_unit()) == [0] * 7


def test_a_gap_at_the_threshold_is_not_above_it():
    callback = AdaptiveStochasticDepth(threshold=0.25, window=1)
    assert decisions(callback, [0.25, 0.2501], model=one_unit()) == [0, 0, 0.05]


def test_a_unit_alone_is_the_deepest():
    model = one_unit()
    set_drop_rate(model, 0.2)
    (layer,) = sums(model)
    assert layer.survival_probability.numpy() == pytest.approx([0.8])
    assert layer.scale.numpy() == pytest.approx([0.4 / 0.8])
    assert bool(layer.active.numpy())
    x = np.array([[1.0, 2, 3]], "float32")
    np.testing.assert_allclose(model(x, training=False), 1.4 * x, rtol=1e-6)


@pytest.mark.parametrize("chief", [True, False])
def test_the_chief_alone_tells_of_a_decision(chief, monkeypatch):
    told = []
    monkeypatch.setattr(stochastic_depth, "tell", lambda text, *values: told.append(text % values))
    monkeypatch.setattr(stochastic_depth, "is_chief", lambda strategy: chief)
    decisions(AdaptiveStochasticDepth(window=2, step=0.1), [0.01, 0.25, 0.5], model=one_unit())
    line = "epoch 3: the gap in accuracy was 0.2500 to 0.5000 over 2 epochs: the drop rate goes from 0 to 0.1"
    assert told == [line] * chief


def test_what_it_keeps_is_numbers_for_json():
    callback = AdaptiveStochasticDepth()
    callback.set_state({"drop_rate": np.float32(0.5), "gaps": [np.float32(0.25)] * 3})
    callback.set_model(one_unit())
    callback.on_epoch_end(0, {"accuracy": np.float32(0.5), "val_accuracy": np.float32(0.5)})
    state = callback.get_state()
    assert json.loads(json.dumps(state)) == {"drop_rate": 0.5, "gaps": [0.25, 0.25, 0.0]}


def test_of_two_units_the_first_never_drops():
    x = inputs = keras.Input((3,))
    for _ in range(2):
        x = StochasticResidualScaling(0.4, active=False)([x, x])
    model = keras.Model(inputs, x)
    set_drop_rate(model, 0.2)
    assert np.ravel(survival(model)) == pytest.approx([1.0, 0.8])


def test_it_stays_off_without_overfitting():
    assert decisions(AdaptiveStochasticDepth(window=1), [0.04, 0.0499, -0.2, 0.01], model=one_unit()) == [0] * 5


@pytest.mark.slow
@pytest.mark.parametrize("residual_scale", [0.3, None])
def test_inference_stays_what_it_was(residual_scale):
    """And so does the expectation in training: scale times survival probability."""
    model = net(residual_scale=residual_scale)
    images = np.random.default_rng(0).normal(size=(3, 75, 75, 1)).astype("float32")
    before = model.predict(images, verbose=0)
    factors = [layer.scale.numpy() * layer.survival_probability.numpy() for layer in sums(model)]
    for rate in (0.5, 0.1, 0.0):
        set_drop_rate(model, rate)
        np.testing.assert_allclose(model.predict(images, verbose=0), before, rtol=1e-5, atol=1e-6)
        for layer, factor in zip(sums(model), factors, strict=True):
            np.testing.assert_allclose(layer.scale.numpy() * layer.survival_probability.numpy(), factor, rtol=1e-6)


@pytest.mark.slow
def test_how_often_paths_are_dropped():
    """Of 400 draws the deepest unit's path misses a share within five standard deviations of 0.4."""
    model = net()
    set_drop_rate(model, 0.4)
    last = sums(model)[-1]
    shortcut, path = np.zeros((1, 1, 1, 8), "float32"), np.ones((1, 1, 1, 8), "float32")
    dropped = [float(np.max(last([shortcut, path], training=True))) == 0 for _ in range(400)]
    assert abs(np.mean(dropped) - 0.4) < 5 * np.sqrt(0.4 * 0.6 / 400)


def test_the_state_goes_through_a_checkpoint():
    callback = AdaptiveStochasticDepth(window=2, step=0.1)
    decisions(callback, [0.2, 0.2, 0.2], model=one_unit())
    states, arrays = get_states([callback])
    other = AdaptiveStochasticDepth(window=2, step=0.1)
    other.set_model(callback.model)
    assert set_states([other], states, arrays.get) == []
    for one in (callback, other):
        one.on_epoch_end(3, {"accuracy": 0.7, "val_accuracy": 0.5})
    assert other.drop_rate == callback.drop_rate == 0.2


class Traced(keras.losses.SparseCategoricalCrossentropy):
    """Counts how often Python runs it, which is only when TensorFlow traces a function that uses it."""

    traces = 0

    def call(self, y_true, y_pred):
        self.traces += 1
        return super().call(y_true, y_pred)


def fit(images, labels, held_out, epochs, callbacks, residual_scale=0.3):
    model = net(residual_scale=residual_scale)
    model.compile(RMSprop(2e-3), Traced(), metrics=["accuracy"])
    traces = []
    count = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: traces.append(model.loss.traces))
    history = model.fit(
        images, labels, batch_size=16, epochs=epochs, validation_data=held_out, verbose=0, callbacks=[*callbacks, count]
    ).history
    assert len(set(traces)) == 1, "the step was traced again"
    return model, history


@pytest.mark.slow
def test_a_planted_overfit_turns_it_on_without_a_retrace(tmp_path):
    """Labels at random: what the net learns of 32 images holds for no others."""
    rng = np.random.default_rng(0)
    images, held_out = (rng.normal(size=(32, 75, 75, 1)).astype("float32") for _ in range(2))
    labels, others = (rng.integers(0, 2, 32) for _ in range(2))
    callback = AdaptiveStochasticDepth(threshold=0.1, window=2, step=0.1, max_drop_rate=0.2)
    writers = [keras.callbacks.CSVLogger(tmp_path / "log.csv"), keras.callbacks.TensorBoard(tmp_path / "tensorboard")]
    model, history = fit(images, labels, (held_out, others), 16, [callback, *writers])
    rates = history["drop_rate"]
    assert rates[0] == 0
    assert rates[-1] > 0
    assert set(np.diff(rates).round(6)) <= {-0.1, 0.0, 0.1}
    assert all(bool(layer.active.numpy()) for layer in sums(model)) == (callback.drop_rate > 0)
    with open(tmp_path / "log.csv") as file:
        assert [float(row["drop_rate"]) for row in csv.DictReader(file)] == rates
    events = b"".join(path.read_bytes() for path in (tmp_path / "tensorboard" / "train").iterdir())
    assert b"epoch_drop_rate" in events
    assert b"epoch_gap" in events


@pytest.mark.slow
def test_a_run_without_overfit_never_turns_it_on():
    """Dark against bright images: what is learnt holds for all of them."""
    rng = np.random.default_rng(0)
    labels = np.arange(320) % 2
    images = (rng.normal(size=(320, 75, 75, 1)) * 0.3 + (2 * labels - 1)[:, None, None, None]).astype("float32")
    held_out = images[256:], labels[256:]
    callback = AdaptiveStochasticDepth(threshold=0.1, window=3, step=0.1)
    model, history = fit(images[:256], labels[:256], held_out, 8, [callback])
    assert history["gap"][0] > 0.1  # the moving statistics are not there yet
    assert history["val_accuracy"][-1] > 0.95
    assert set(history["drop_rate"]) == {0.0}
    assert not any(bool(layer.active.numpy()) for layer in sums(model))


def test_mistakes():
    for arguments, message in (
        ({"metric": "top-5"}, "metric='top-5' must be one of accuracy, loss"),
        ({"threshold": 0}, "threshold=0 must be a finite number > 0"),
        ({"window": 0}, "window=0 must be an integer of at least 1"),
        ({"step": -0.1}, "step=-0.1 must be a finite number > 0"),
        ({"max_drop_rate": 1.0}, "max_drop_rate=1.0 must be a finite number > 0 and ≤ 0.95"),
    ):
        with pytest.raises(ValueError, match=message):
            AdaptiveStochasticDepth(**arguments)
    callback = AdaptiveStochasticDepth()
    callback.set_model(keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)]))
    with pytest.raises(ValueError, match="has no residual units"):
        callback.on_train_begin()
    with pytest.raises(ValueError, match=r"'val_accuracy' is not among the logs \(loss, accuracy\); compile"):
        callback.on_epoch_end(0, {"loss": 1.0, "accuracy": 0.5})
    with pytest.raises(ValueError, match=r"'accuracy' is not among the logs \(\)"):
        callback.on_epoch_end(0)
    for rate in (1, -0.01, float("nan")):
        with pytest.raises(ValueError, match=rf"rate={rate} must be in \[0, 1\)"):
            set_drop_rate(one_unit(), rate)
