"""Gradual unfreezing in one `fit`: as Keras trains in several, and as if it had not been interrupted."""

import csv
import dataclasses
import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import keras
import numpy as np
import pytest

from polynet_keras.applications import PolyNet
from polynet_keras.data.examples import Source
from polynet_keras.models.parts import part_of
from polynet_keras.training.making import make_optimizer, make_schedule
from polynet_keras.training.recipes.optimizer import OptimizerSettings
from polynet_keras.training.recipes.phases import PhaseSettings
from polynet_keras.training.recipes.recipe import Recipe
from polynet_keras.training.recipes.regularization import Regularization
from polynet_keras.training.recipes.schedule import ScheduleSettings
from polynet_keras.training.recipes.start import Start
from polynet_keras.training.runs.execution import Execution
from polynet_keras.training.runs.preparation import compiled_model
from polynet_keras.training.runs.train import train
from polynet_keras.training.runs.unfreezing import Unfreezing
from tests.data.arrays import examples_of, png, random_images
from tests.reference import few_layers, randomize
from tests.training.runs.in_memory import STEPS, runs_in_memory

pytestmark = pytest.mark.skipif(
    tuple(map(int, keras.__version__.split(".")[:2])) < (3, 15), reason="phases with averages need Keras 3.15"
)

UNFROZEN = Start("fashion_mnist", unfreezing=(PhaseSettings("stem", 2, 0.05),))
RECIPE = Recipe(
    epochs=5,
    batch_size=16,
    start=UNFROZEN,
    schedule=ScheduleSettings("cosine", 0.02, 0.2),
    optimizer=OptimizerSettings("adamw", ema_momentum=0.5),
    regularization=Regularization(weight_decay=0.1),
)


class Interrupter(keras.callbacks.TensorBoard):
    """Stands in for TensorBoard's: a test may have it interrupt the run."""


@pytest.fixture(autouse=True, scope="module")
def few():
    with runs_in_memory({"training": 48, "held_out": 10}, Interrupter, net) as data:
        yield data


def net(input_shape=(75, 75, 3), classes=2, **_):
    model = few_layers(input_shape, classes)
    randomize(model, 3)
    return model


def history(folder):
    with open(folder / "history.csv") as file:
        return [{name: row[name] for name in row if name != "images_per_second"} for row in csv.DictReader(file)]


def moved(variables, before):
    """The parts whose variables have other values."""
    now = zip(variables, before, strict=True)
    return {part_of(v.path.split("/")[0]) for v, old in now if not np.array_equal(v, old)} - {None}


class Raw(keras.callbacks.Callback):
    """Keeps the weights of the last epoch, before `fit` puts the averages in their place."""

    def on_epoch_end(self, epoch, logs=None):
        self.weights = self.model.get_weights()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "accumulated", "ema"),
    [
        ("adamw", 1, 0.5),
        ("rmsprop", 2, 0.0),
        ("lamb", 1, 0.5),
        ("sgd", 2, 0.7),
    ],
)
def test_a_run_is_kerass_several_fits(few, tmp_path, name, accumulated, ema):
    """`trainable` is set, the model compiled with a new optimizer, and fitted: phase after phase, as Keras's guide to
    transfer learning does. The weights that a phase begins with are not the averages."""
    optimizer = OptimizerSettings(name, ema_momentum=ema, gradient_accumulation_steps=accumulated)
    recipe = dataclasses.replace(RECIPE, optimizer=optimizer)
    train(recipe, tmp_path / "run")
    model, raw = net(), Raw()
    rows, done = [], 0
    for epochs, rate, stem in ((2, 0.05, False), (3, 0.02, True)):
        for layer in model.layers:
            layer.trainable = stem or part_of(layer.name) != "stem"
        before = model.get_weights()
        schedule = make_schedule(dataclasses.replace(recipe.schedule, learning_rate=rate), epochs * STEPS, STEPS)
        model.compile(
            make_optimizer(optimizer, schedule, 0.1, model), "sparse_categorical_crossentropy", metrics=["accuracy"]
        )
        fitted = model.fit(
            few["training"].repeat().skip(done * STEPS),
            validation_data=few["held_out"],
            epochs=epochs,
            steps_per_epoch=STEPS,
            shuffle=False,
            verbose=0,
            callbacks=[raw, *([keras.callbacks.SwapEMAWeights()] if ema else [])],
        )
        done += epochs
        rows += [
            {key: values[i] for key, values in fitted.history.items()}
            | {"learning_rate": float(schedule((i + 1) * STEPS))}
            for i in range(epochs)
        ]
        averages = model.get_weights()
        model.set_weights(raw.weights)
        moved = {
            part_of(v.path.split("/")[0])
            for v, b in zip(model.weights, before, strict=True)
            if not np.array_equal(v, b)
        }
        assert moved == ({"stem", "predictions"} if stem else {"predictions"})
    found = history(tmp_path / "run")
    assert len(found) == len(rows) == 5
    for row, expected in zip(found, rows, strict=True):
        for key, value in expected.items():
            assert float(row[key]) == pytest.approx(value, rel=1e-4, abs=1e-6), (row["epoch"], key)
    trained = keras.saving.load_model(tmp_path / "run" / "model.keras")
    for one, other in zip(trained.get_weights(), averages, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)
    assert float(trained.optimizer.learning_rate) == pytest.approx(rows[-1]["learning_rate"], abs=1e-9)


@pytest.fixture(scope="module")
def whole(few, tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    train(RECIPE, folder)
    return folder


@pytest.mark.parametrize(
    ("where", "at"),
    [
        ("on_train_batch_end", (0, 1)),
        pytest.param(
            "on_epoch_begin", (2, 0), marks=pytest.mark.slow
        ),  # between two phases: what is saved is the first one's
        pytest.param("on_train_batch_end", (2, 1), marks=pytest.mark.slow),
        pytest.param("on_train_batch_end", (1, 2), marks=pytest.mark.slow),
        pytest.param("on_test_batch_end", (1, 0), marks=pytest.mark.slow),
        pytest.param("on_train_batch_end", (2, 0), marks=pytest.mark.slow),
        pytest.param("on_train_batch_end", (3, 1), marks=pytest.mark.slow),
    ],
)
def test_a_run_that_goes_on_is_the_same(tmp_path, whole, monkeypatch, where, at):
    begin = keras.callbacks.TensorBoard.on_epoch_begin

    def begins(self, epoch, logs=None):
        self.under_way = epoch
        if where == "on_epoch_begin" and epoch == at[0]:
            raise KeyboardInterrupt
        begin(self, epoch, logs)

    def interrupt(self, number, logs=None):
        if (self.under_way, number) == at:
            raise KeyboardInterrupt

    folder, execution = tmp_path / "run", Execution(save_every_steps=1)
    with monkeypatch.context() as patch:
        if where != "on_epoch_begin":
            patch.setattr(Interrupter, where, interrupt)
        patch.setattr(Interrupter, "on_epoch_begin", begins)
        with pytest.raises(KeyboardInterrupt):
            train(RECIPE, folder, execution)
    assert (folder / "checkpoints").is_dir()
    train(RECIPE, folder, execution)
    assert history(folder) == history(whole)
    found, expected = (keras.saving.load_model(one / "model.keras") for one in (folder, whole))
    for one, other in zip(found.variables, expected.variables, strict=True):
        np.testing.assert_array_equal(one, other)
    for one, other in zip(found.optimizer.variables, expected.optimizer.variables, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.slow
def test_a_phase_is_told(tmp_path, whole, caplog):
    with caplog.at_level(logging.INFO, "absl"):
        train(dataclasses.replace(RECIPE, epochs=3), tmp_path / "run")
    assert "epochs 1 to 2: frozen through stem, learning rate 0.05" in caplog.text
    assert "epochs 3 to 3: nothing is frozen, learning rate 0.02" in caplog.text


@pytest.mark.slow
def test_patience_counts_from_the_last_phase_on(few, tmp_path, monkeypatch):
    """The best epoch is the first one: without phases the run would end after the second."""
    from polynet_keras.training.runs import best_epoch

    monkeypatch.setattr(best_epoch.BestEpoch, "on_test_end", lambda self, logs=None: setattr(self, "epoch", 0))
    parts = {name: dataclasses.replace(examples_of([png(i) for i in random_images(2)]), name=name) for name in few}
    source = Source(**parts, validation=dataclasses.replace(parts["held_out"], name="held_out"))
    monkeypatch.setattr("polynet_keras.training.runs.opening.open_source", lambda *arguments: source)
    monkeypatch.setattr(best_epoch.BestEpoch, "restore", lambda self: None)
    start = Start("fashion_mnist", unfreezing=(PhaseSettings("stem", 3),))
    train(dataclasses.replace(RECIPE, epochs=6, patience=1, start=start), tmp_path / "run")
    assert len(history(tmp_path / "run")) == 4


def test_an_update_needs_a_phase_that_is_long_enough(tmp_path):
    settings = OptimizerSettings(gradient_accumulation_steps=7)
    with pytest.raises(ValueError, match=r"=7 is more than the 6 steps of the shortest phase: it would make no update"):
        train(dataclasses.replace(RECIPE, optimizer=settings), tmp_path / "run")


@pytest.mark.slow
@pytest.mark.parametrize("remat", ["none", "all"])
@pytest.mark.parametrize("precision", ["float32", "mixed_float16"])
def test_frozen_normalizations_take_statistics_once_they_train(few, monkeypatch, remat, precision):
    """In a PolyNet, whose rematerialized units have their variables' roles from when they are first computed."""
    monkeypatch.setattr(
        "polynet_keras.training.runs.preparation.PolyNet", lambda weights, **more: PolyNet(weights=None, **more)
    )
    start = Start("fashion_mnist", unfreezing=(PhaseSettings("stage_c", 1), PhaseSettings("reduction_b", 1)))
    recipe = Recipe(
        structure="1 x [ir] | 1 x [ir] | 1 x [ir]", width=0.05, epochs=3, start=start, remat=remat, precision=precision
    )
    examples = dataclasses.replace(examples_of([png(image) for image in random_images(2)]), count=2)
    model = compiled_model(recipe, Source(examples, examples), 2)
    seen = []

    class Moved(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            self.before = [keras.ops.convert_to_numpy(v) for v in model.variables]

        def on_epoch_end(self, epoch, logs=None):
            seen.append(moved(model.variables, self.before))

    batches = few["training"].map(lambda image, label: (image[:4], label[:4])).repeat()
    model.fit(batches, epochs=3, steps_per_epoch=2, verbose=0, callbacks=[Unfreezing(recipe, 2), Moved()])
    everything = {part_of(layer.name) for layer in model.layers} - {None}
    # In float16 the first steps of each phase may overflow, and only statistics move.
    assert [one | {"predictions"} for one in seen] == [{"predictions"}, {"predictions", "stage_c"}, everything]
    assert len(everything) == 7


@pytest.mark.slow
@pytest.mark.parametrize("epochs_before", [1, 3], ids=["second phase", "last phase"])
def test_the_same_bits_with_and_without_an_interruption(digits_run, tmp_path, epochs_before):
    """`--deterministic`, which holds for a process: each run has one of its own. SIGTERM, then the same command."""
    command = ["polynet", "train", "--deterministic", f"--weights={digits_run.folder}", "--epochs=5", "--batch_size=64"]
    command += ["--unfreezing=stage_c:1,stage_b:2:0.001", "--frozen_through=stem", "--layer_decay=0.5", "--patience=1"]
    command += ["--optimizer=adamw", "--weight_decay=0.1", "--ema_momentum=0.5", "--gradient_accumulation_steps=2"]
    command += ["--global_clipnorm=1", "--validation_share=0.2", "--save_every_steps=4"]
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}

    def start(name):
        return subprocess.Popen([*command, f"--run_dir={tmp_path / name}"], env=environment)

    assert start("whole").wait() == 0
    process, written = start("broken"), tmp_path / "broken" / "history.csv"
    while process.poll() is None and not (written.is_file() and len(written.read_text().splitlines()) > epochs_before):
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    assert process.wait() == 75
    assert start("broken").wait() == 0
    expected, model, start = (
        keras.saving.load_model(folder / "model.keras")
        for folder in (tmp_path / "whole", tmp_path / "broken", digits_run.folder)
    )
    for find in (lambda model: model.weights, lambda model: model.optimizer.variables):
        for found, wanted in zip(find(model), find(expected), strict=True):
            np.testing.assert_array_equal(found, wanted, err_msg=wanted.path)
    assert history(tmp_path / "broken") == history(tmp_path / "whole")
    assert len(history(tmp_path / "whole")) >= 4  # patience counts from the last phase on
    assert "stem" not in moved(model.weights, [keras.ops.convert_to_numpy(weight) for weight in start.weights])
