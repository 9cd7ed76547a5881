"""The range test trains as Keras does at its rates, ends where the loss diverges, and leaves nothing."""

import dataclasses
import json
import logging
import math
from types import SimpleNamespace

import keras
import numpy as np
import pytest
import tensorflow as tf

from polynet_keras.cli.main import main
from polynet_keras.data.sources import open_source
from polynet_keras.data.unreadable import Unreadable
from polynet_keras.training.recipes.optimizer import OptimizerSettings
from polynet_keras.training.recipes.recipe import Recipe
from polynet_keras.training.runs import find_learning_rate as module
from polynet_keras.training.runs.find_learning_rate import find_learning_rate
from polynet_keras.training.runs.learning_rate_range import LearningRateRange
from polynet_keras.training.runs.preparation import compiled_model, preprocessing_of, training_data
from tests.reference import few_layers

FEW = 12


@pytest.fixture(autouse=True)
def small(monkeypatch, tmp_path):
    """A few layers, a few digits, and twelve updates, from 1e-4 to 1."""
    monkeypatch.setattr("polynet_keras.training.runs.preparation.PolyNet", few_layers)
    whole = open_source("digits", 0)
    source = dataclasses.replace(whole, training=whole.training.subset(np.arange(40), "training"))
    monkeypatch.setattr("polynet_keras.training.runs.opening.open_source", lambda *arguments: source)
    monkeypatch.setattr(module, "UPDATES", FEW)
    monkeypatch.setattr(module, "LOWEST", 1e-4)
    monkeypatch.setattr(module, "HIGHEST", 1.0)
    monkeypatch.chdir(tmp_path)
    return source


@pytest.mark.slow
@pytest.mark.parametrize(("accumulated", "seed"), [(2, 0), (1, 0), (1, 1), (2, 1)])
def test_the_losses_are_kerass_at_these_rates(small, tmp_path, accumulated, seed):
    factors = {"stem": 0.5}
    settings = OptimizerSettings(
        "sgd", gradient_accumulation_steps=accumulated, ema_momentum=0.5, learning_rate_factors=factors
    )
    recipe = Recipe(optimizer=settings, batch_size=16, seed=seed)
    found = find_learning_rate(recipe)
    assert list(tmp_path.iterdir()) == []
    np.testing.assert_allclose(found.rates, np.geomspace(1e-4, 1, FEW), rtol=1e-5)
    assert found.updates == FEW

    # The same weights and batches, and the update written out.
    keras.utils.set_random_seed(recipe.seed)
    batches = training_data(recipe, small, preprocessing_of(recipe, small), Unreadable("error"), None, 0).dataset
    model = compiled_model(recipe, small, 3)
    loss, batches = keras.losses.SparseCategoricalCrossentropy(), iter(batches)
    momentum = {}
    for rate, expected in zip(found.rates, found.losses, strict=True):
        losses, sums = [], None
        for _ in range(accumulated):
            images, labels = next(batches)
            with tf.GradientTape() as tape:
                losses.append(loss(labels, model(images, training=True)))
            gradients = tape.gradient(losses[-1], model.trainable_variables)
            sums = gradients if sums is None else [a + b for a, b in zip(sums, gradients, strict=True)]
        assert float(np.mean(losses)) == pytest.approx(expected, rel=2e-4)
        for variable, gradient in zip(model.trainable_variables, sums, strict=True):
            own = rate * (factors["stem"] if variable.path.startswith("stem") else 1.0)
            step = own * gradient / accumulated
            momentum[variable.path] = 0.9 * momentum.get(variable.path, 0.0) - step
            variable.assign_add(0.9 * momentum[variable.path] - step)  # Nesterov's, as Keras has it


@pytest.mark.slow
def test_in_float16_a_rate_comes_again_where_an_update_overflows():
    """Keras begins with a scale of 2¹⁵, and halves it; an update that is left out is not counted."""
    found = find_learning_rate(Recipe(precision="mixed_float16", batch_size=16))
    steps = dict.fromkeys(found.rates)
    np.testing.assert_allclose(list(steps), np.geomspace(1e-4, 1, FEW)[: len(steps)], rtol=1e-5)
    assert len(found.rates) == FEW
    assert list(found.rates) == sorted(found.rates)


def told(steps, losses):
    steps.set_model(
        SimpleNamespace(reset_metrics=lambda: None, stop_training=False, optimizer=SimpleNamespace(learning_rate=0.5))
    )
    for number, loss in enumerate(losses):
        steps.on_train_batch_begin(number)
        steps.on_train_batch_end(number, {"loss": loss})
        if steps.model.stop_training:
            return number
    return None


def test_it_ends_where_the_smoothed_loss_is_four_times_its_lowest():
    """Of 1, 1, then 100s: the third smoothed value is far above 4."""
    steps = module._Steps(1)
    assert told(steps, [1.0, 1.0, 100.0, 100.0]) == 2
    assert steps.losses == [1.0, 1.0, 100.0]
    assert told(module._Steps(1), [1.0, 1.0, 3.9, 3.9]) is None


@pytest.mark.parametrize("loss", [math.nan, math.inf])
def test_a_loss_that_is_no_number_ends_it_and_is_left_out(loss):
    steps = module._Steps(2)
    assert told(steps, [1.0, 3.0, 1.0, loss]) == 3
    assert (steps.losses, steps.rates) == ([2.0], [0.5])


def test_lines_where_there_is_no_terminal(caplog):
    caplog.set_level(logging.INFO, "absl")
    told(module._Steps(1), [2.0] * 20)
    assert f"range test: 20 of {FEW} updates, learning rate 5.0e-01, loss 2.0000" in caplog.text


def test_several_workers_are_refused(monkeypatch):
    cluster = {"cluster": {"worker": ["a:1", "b:1"]}, "task": {"type": "worker", "index": 0}}
    monkeypatch.setenv("TF_CONFIG", json.dumps(cluster))
    with pytest.raises(ValueError, match="the range test of the learning rate runs on one worker"):
        find_learning_rate(Recipe())


def test_the_command_tells_the_proposal(capsys, monkeypatch, tmp_path):
    measured = find_learning_rate(Recipe(batch_size=8))
    falling = dataclasses.replace(measured, losses=(3.0, 2.0, 1.0, *[5.0] * (FEW - 3)))  # so few updates learn nothing
    monkeypatch.setattr(module, "find_learning_rate", lambda *arguments, **more: falling)
    assert main(["train", "--find_learning_rate", "--output=lr.csv", "--batch_size=8"]) == 0
    output = capsys.readouterr().out
    assert "range test: 12 updates at learning rates from 1.0e-04 to 1.0e+00" in output
    assert "table:      lr.csv; plot: lr.png" in output
    assert "(the recipe has 0.002)" in output
    assert {path.name for path in tmp_path.iterdir()} == {"lr.csv", "lr.png"}


def test_the_command_says_that_there_is_no_proposal(capsys, monkeypatch):
    found = LearningRateRange((1e-7, 2e-7), (2.0, 2.5), 100)
    monkeypatch.setattr(module, "find_learning_rate", lambda *arguments, **more: found)
    assert main(["train", "--find_learning_rate"]) == 1
    assert "proposes nothing: the loss diverged after 2 updates" in capsys.readouterr().err
