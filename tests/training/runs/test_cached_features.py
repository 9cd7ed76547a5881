"""Runs on features that are computed once: the same as without, whole, and going on wherever they were."""

import csv
import dataclasses
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import keras
import numpy as np
import pytest

from polynet_keras.applications import PolyNet
from polynet_keras.cluster.failures import leave  # noqa: F401 (workers call it)
from polynet_keras.data import example_images
from polynet_keras.data.augmentation import Augmentation
from polynet_keras.data.examples import Source
from polynet_keras.data.sources import open_source
from polynet_keras.data.unreadable import Unreadable
from polynet_keras.engine.network import Network
from polynet_keras.loading import load_model
from polynet_keras.pretrained import ModelCard
from polynet_keras.training.features.files import FeatureFiles
from polynet_keras.training.recipes.optimizer import OptimizerSettings
from polynet_keras.training.recipes.recipe import Recipe
from polynet_keras.training.recipes.regularization import Regularization
from polynet_keras.training.recipes.schedule import ScheduleSettings
from polynet_keras.training.recipes.start import Start
from polynet_keras.training.runs import cached, opening, preparation
from polynet_keras.training.runs.execution import Execution
from polynet_keras.training.runs.train import train
from tests.data.arrays import examples_of, png, random_images
from tests.processes import run_workers
from tests.reference import few_layers, randomize

SMALLEST = {"structure": "1 x [ir] | 1 x [2-way] | 1 x [ir]", "width": 0.05}
FULL = OptimizerSettings("sgd", ema_momentum=0.6, global_clipnorm=1.0, gradient_accumulation_steps=2)


def recipe_of(weights, copies=1, through="stem", **settings):
    given = {
        "epochs": 3,
        "batch_size": 16,
        "validation_share": 0.1,
        "schedule": ScheduleSettings("constant", 0.05, 0.0),
        "optimizer": FULL,
        **settings,
    }
    return Recipe(**given, start=Start(str(weights), frozen_through=through, cache_features=copies))


def few_digits() -> Source:
    source = open_source("digits", 0, validation_share=0.1)
    assert source.validation is not None

    def part(examples, count):
        return examples.subset(np.linspace(0, len(examples) - 1, count).astype(int), examples.name)

    training, validation = part(source.training, 70), part(source.validation, 20)
    return dataclasses.replace(source, training=training, validation=validation, held_out=part(source.held_out, 30))


@pytest.fixture(autouse=True)
def few_images(monkeypatch):
    """Runs on the digits take a part of them."""
    few = few_digits()
    monkeypatch.setattr(opening, "open_source", lambda *arguments: few)
    return few


@pytest.fixture
def weights(tmp_path, monkeypatch):
    """Those of few layers, which runs train in place of a PolyNet; a run that goes on begins with others."""

    def net(weights=None, **arguments):
        model = few_layers(**arguments)
        if weights:
            model.load_weights(weights)
        return model

    monkeypatch.setattr(preparation, "PolyNet", net)
    model = few_layers((75, 75, 1), 10)
    randomize(model, 3)
    model.save_weights(tmp_path / "net.weights.h5")
    return tmp_path / "net.weights.h5"


@pytest.fixture
def of_polynet(tmp_path):
    model = PolyNet(weights=None, input_shape=(75, 75, 1), classes=10, **SMALLEST)
    randomize(model, 3)
    model.save_weights(tmp_path / "net.weights.h5")
    return tmp_path / "net.weights.h5"


def history(folder):
    with open(folder / "history.csv") as file:
        rows = [{name: float(row[name]) for name in row if name != "images_per_second"} for row in csv.DictReader(file)]
    return np.array([list(row.values()) for row in rows])


def check_same(folder, other, exactly=False):
    """Histories, models and cards, but for rounding."""
    np.testing.assert_allclose(
        history(folder), history(other), rtol=0 if exactly else 1e-4, atol=0 if exactly else 1e-5
    )
    models = [keras.saving.load_model(one / "model.keras") for one in (folder, other)]
    for find in (lambda model: model.weights, lambda model: model.optimizer.variables):
        for found, wanted in zip(*map(find, models), strict=True):
            if exactly:
                np.testing.assert_array_equal(found, wanted, err_msg=wanted.path)
            else:
                np.testing.assert_allclose(found, wanted, rtol=1e-3, atol=1e-5, err_msg=wanted.path)
    assert ModelCard.load(folder) == ModelCard.load(other)


@pytest.mark.slow
def test_a_run_leaves_the_whole_model(tmp_path, weights, few_images, caplog):
    """It classifies images, and in it the frozen part is what the run began with."""
    caplog.set_level("INFO", logger="absl")
    result = train(recipe_of(weights), tmp_path / "run")
    assert f"features of 120 images, each 73 x 73 x 4 numbers, 10.2 MB in {tmp_path}/run/features" in caplog.text
    left = {"model.keras", "model.json", "recipe.json", "history.csv", "curves.png", "samples", "tensorboard"}
    assert {path.name for path in (tmp_path / "run").iterdir()} == {*left, "features"}
    trained = load_model(tmp_path / "run")
    held_out = few_images.held_out
    images = np.stack([trained.preprocessing(held_out.image(index)) for index in range(30)])
    right = trained.model.predict_on_batch(images).argmax(1) == [held_out.label(index) for index in range(30)]
    assert (result.card.held_out, result.card.held_out_correct) == (30, right.sum())
    assert 1 <= result.card.epoch <= 3
    before = few_layers((75, 75, 1), 10)
    before.load_weights(weights)
    for name in ("stem_conv1", "stem_conv1_bn"):
        for found, wanted in zip(trained.model.get_layer(name).weights, before.get_layer(name).weights, strict=True):
            np.testing.assert_array_equal(found, wanted)
    assert not np.array_equal(trained.model.layers[-1].kernel, before.layers[-1].kernel)


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"regularization": Regularization(0.01, 0.1), "class_weights": "balanced"},
        {"validation_share": 0.0, "optimizer": OptimizerSettings("adamw")},
        {"precision": "mixed_bfloat16"},
    ],
)
def test_as_many_copies_as_epochs_train_as_the_images_do(tmp_path, weights, monkeypatch, few_images, settings):
    if settings.get("validation_share") == 0:
        source = dataclasses.replace(few_images, validation=None)
        monkeypatch.setattr(opening, "open_source", lambda *arguments: source)
    settings = {"augmentation": Augmentation("random_resized", flip=True, erasing=0.3), **settings}
    train(recipe_of(weights, 0, **settings), tmp_path / "plain")
    train(recipe_of(weights, 3, **settings), tmp_path / "cached")
    check_same(tmp_path / "cached", tmp_path / "plain")


@pytest.mark.slow
@pytest.mark.parametrize(("through", "remat"), [("stage_a", "all"), ("stage_c", "none")])
def test_where_nothing_is_augmented_one_copy_trains_as_the_images_do(tmp_path, of_polynet, monkeypatch, through, remat):
    """Crops are the centre ones here; drop rates, and statistics of normalizations, are those of the weights."""
    settings = {**SMALLEST, "through": through, "remat": remat}
    train(recipe_of(of_polynet, 1, **settings), tmp_path / "cached")

    def centre(image, size, seed):
        (margin,) = {side - size for side in image.shape[:2]}
        first = round(margin / 2)
        return image[first : first + size, first : first + size]

    monkeypatch.setattr(example_images, "random_crop", centre)
    train(recipe_of(of_polynet, 0, **settings), tmp_path / "plain")
    check_same(tmp_path / "cached", tmp_path / "plain")


def test_classes_are_drawn_equally_often(tmp_path, few_images):
    """With images that could not be read told, as a run does that begins after its features were computed."""
    labels = np.repeat([0, 1], (50, 14))
    training = examples_of([png(image) for image in random_images(64, 20, channels=1)], labels)
    recipe = recipe_of("any", 2, sampling="balanced", on_error="skip")
    source = dataclasses.replace(few_images, training=training)
    copies = []
    for name in ("one", "two"):
        copies.append(FeatureFiles(tmp_path / name, 64, (1,), "float32"))
        copies[-1].folder.mkdir()
        for chunk in copies[-1].missing():
            of = copies[-1].examples_of(chunk)
            copies[-1].write(chunk, of[:, None].astype("float32"), labels[of], of != 3)
    unreadable = Unreadable("skip")
    protocol = preparation.preprocessing_of(recipe, source)
    batches = preparation.training_data(recipe, source, protocol, unreadable, None, 0, copies)
    drawn = np.concatenate([labels for _, labels in batches.dataset.take(batches.steps).as_numpy_iterator()])
    np.testing.assert_array_equal(np.bincount(drawn), [32, 32])
    assert unreadable.skipped == {3: "image 3: could not be read when its features were computed"}


def break_off(patch, after):
    """Interrupts the next run after so many updates, each of two steps, of which an epoch has five."""

    def interrupt(self, batch, logs=None):
        if self.model.optimizer.iterations >= after:
            raise KeyboardInterrupt

    patch.setattr(keras.callbacks.CSVLogger, "on_train_batch_end", interrupt, raising=False)


@pytest.mark.slow
@pytest.mark.parametrize("lost", [(), ("weights",), ("weights", "features")])
def test_a_run_goes_on_in_the_middle_of_an_epoch(tmp_path, weights, monkeypatch, caplog, lost):
    """Without the file that it began with, and without its features: then they are computed again."""
    execution = Execution(save_every_steps=2)
    train(recipe_of(weights), tmp_path / "whole", execution)
    with monkeypatch.context() as patch:
        break_off(patch, 4)
        with pytest.raises(KeyboardInterrupt):
            train(recipe_of(weights), tmp_path / "run", execution)
    assert load_model(tmp_path / "run" / "best.keras").model.input_shape == (None, 75, 75, 1)
    if "weights" in lost:
        weights.unlink()
    if "features" in lost:
        shutil.rmtree(tmp_path / "run" / "features")
    caplog.set_level("INFO", logger="absl")
    caplog.clear()
    train(recipe_of(weights), tmp_path / "run", execution)
    assert ("they are computed once" if "features" in lost else "they already exist") in caplog.text
    check_same(tmp_path / "run", tmp_path / "whole")


@pytest.mark.slow
def test_an_interrupt_while_features_are_computed_keeps_them(tmp_path, weights, monkeypatch, caplog):
    write = FeatureFiles.write

    def interrupt(self, chunk, *arrays):
        if chunk == 2:
            raise KeyboardInterrupt
        write(self, chunk, *arrays)

    with monkeypatch.context() as patch:
        patch.setattr(FeatureFiles, "write", interrupt)
        with pytest.raises(KeyboardInterrupt):
            train(recipe_of(weights), tmp_path / "run")
    assert f"interrupted: `polynet train --run_dir={tmp_path}/run` resumes with the features so far" in caplog.text
    assert {path.name for path in (tmp_path / "run").iterdir()} == {"recipe.json", "features"}
    caplog.set_level("INFO", logger="absl")
    train(recipe_of(weights, epochs=3), tmp_path / "run")
    assert "they are computed once; those of 64 images exist" in caplog.text


def begun(monkeypatch, folder, execution, compute):
    """Has a run begin whose features are computed by `compute`, which is interrupted."""

    def run_features(*arguments):
        compute()
        raise KeyboardInterrupt

    monkeypatch.setattr(cached, "run_features", run_features)
    checkpoints: Any = SimpleNamespace(reload=lambda model: None)
    nothing: Any = None
    with pytest.raises(KeyboardInterrupt):
        cached.begin_behind(nothing, folder, recipe_of("any"), nothing, nothing, checkpoints, execution, None)


def write_one(folder):
    (folder / "0123").mkdir(parents=True)
    (folder / "0123" / "00000.npy").touch()


def test_only_features_that_are_there_are_gone_on_with(tmp_path, monkeypatch, caplog):
    begun(monkeypatch, tmp_path, Execution(), lambda: None)
    assert caplog.text == ""
    begun(monkeypatch, tmp_path, Execution(), lambda: write_one(tmp_path / "features"))
    assert f"`polynet train --run_dir={tmp_path}` resumes with the features so far" in caplog.text


def test_a_run_that_goes_on_without_its_features_says_so(tmp_path, monkeypatch, caplog):
    def warned(execution=None):
        caplog.clear()
        begun(monkeypatch, tmp_path, execution or Execution(), lambda: None)
        return f"{tmp_path / 'features'} has no features, and all of them are computed again" in caplog.text

    assert not warned()
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "checkpoint-1.index").touch()
    assert warned()
    assert "pass the same --features_dir again" in caplog.text
    assert not warned(Execution(features_dir=str(tmp_path / "shared")))
    write_one(tmp_path / "features")
    assert not warned()


@pytest.mark.slow
def test_runs_share_a_folder_of_features(tmp_path, weights, monkeypatch, caplog):
    caplog.set_level("INFO", logger="absl")
    shared = Execution(features_dir=str(tmp_path / "shared"))
    train(recipe_of(weights), tmp_path / "one", shared)
    assert not (tmp_path / "one" / "features").exists()
    monkeypatch.setattr(Network, "predict_on_batch", None)
    train(recipe_of(weights, schedule=ScheduleSettings("constant", 0.01, 0.0)), tmp_path / "other", shared)
    assert f"MB in {tmp_path / 'shared'}: they already exist, and are used again" in caplog.text
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match=r"features_dir='.*file' is not a folder; name another"):
        train(recipe_of(weights), tmp_path / "third", Execution(features_dir=str(tmp_path / "file")))


@pytest.mark.slow
def test_images_that_cannot_be_read_are_left_out(tmp_path, weights, monkeypatch, few_images, caplog):
    """Of the held-out ones those that can be read count, in a second run too, which reads none."""
    decode = example_images.decode_region

    def one_is_broken(index, examples, unreadable, *arguments, **options):
        import tensorflow as tf

        def refuse(index):
            unreadable.keep(int(index), ValueError(f"{examples.shown_name(int(index))}: broken"))
            return np.bool_(False)

        image, label, readable = decode(index, examples, unreadable, *arguments, **options)
        kept = tf.cond(index == 3, lambda: tf.numpy_function(refuse, [index], tf.bool), lambda: readable)
        return image, label, tf.ensure_shape(kept, ())

    monkeypatch.setattr(example_images, "decode_region", one_is_broken)
    shared = Execution(features_dir=str(tmp_path / "shared"))
    for name in ("one", "two"):
        caplog.clear()
        assert train(recipe_of(weights, on_error="skip"), tmp_path / name, shared).card.held_out == 29
        for count in (70, 20, 30):
            assert f"skipped 1 of {count} images that cannot be read" in caplog.text
        assert "could not be read when its features were computed" in caplog.text


WORKER = """
import sys

from absl import logging
from tests.training.runs import test_cached_features as tests

folder, weights, copies, shared = sys.argv[1:]
logging.set_verbosity("info")
tests.opening.open_source = lambda *arguments: tests.few_digits()
recipe = tests.recipe_of(weights, int(copies), "stage_b", synchronized=True, **tests.SMALLEST)
tests.train(recipe, folder, tests.Execution(features_dir=shared))
tests.leave()
"""


@pytest.mark.slow
@pytest.mark.parametrize("copies", [1, 2])
def test_two_workers_share_the_work_and_the_files(tmp_path, of_polynet, copies, monkeypatch, caplog):
    shared = tmp_path / "shared"
    workers = run_workers(2, WORKER, str(tmp_path / "two"), str(of_polynet), str(copies), str(shared), timeout=600)
    assert [worker.code for worker in workers] == [0, 0], workers
    files = {path: path.stat().st_mtime_ns for path in shared.rglob("*.npy")}
    assert len(files) == 3 * copies + 2
    caplog.set_level("INFO", logger="absl")
    monkeypatch.setattr(Network, "predict_on_batch", None)  # one worker takes what two have computed
    execution = Execution(features_dir=str(shared))
    train(recipe_of(of_polynet, copies, "stage_b", synchronized=True, **SMALLEST), tmp_path / "one", execution)
    assert "they already exist, and are used again" in caplog.text
    assert {path: path.stat().st_mtime_ns for path in shared.rglob("*.npy")} == files
    check_same(tmp_path / "two", tmp_path / "one")


@pytest.mark.slow
def test_the_same_bits_with_and_without_an_interruption(tmp_path, of_polynet):
    """SIGTERM while features are computed is the end; the same command goes on, is told to end in an epoch, goes on."""
    command = ["polynet", "train", "--deterministic", "--epochs=6", "--batch_size=64", "--ema_momentum=0.9"]
    command += [f"--structure={SMALLEST['structure']}", "--width=0.05", f"--weights={of_polynet}", "--flip"]
    command += ["--frozen_through=reduction_b", "--cache_features=3", "--validation_share=0.1", "--patience=6"]
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}

    def start(name):
        return subprocess.Popen([*command, f"--run_dir={tmp_path / name}"], env=environment, stderr=subprocess.DEVNULL)

    def until(process, is_so):
        while process.poll() is None and not is_so():
            time.sleep(0.02)
        process.send_signal(signal.SIGTERM)
        return process.wait()

    assert start("whole").wait() == 0
    folder = tmp_path / "broken"
    assert until(start("broken"), lambda: len(list(folder.glob("features/*/*.npy"))) > 2) not in (0, 75)
    assert not (folder / "history.csv").exists()
    assert len(list(folder.glob("features/*/*.npy"))) < len(list(tmp_path.glob("whole/features/*/*.npy")))
    written = folder / "history.csv"
    assert until(start("broken"), lambda: written.is_file() and len(written.read_text().splitlines()) > 1) == 75
    assert start("broken").wait() == 0
    check_same(folder, tmp_path / "whole", exactly=True)
