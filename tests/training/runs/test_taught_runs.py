"""Runs with a teacher: what they leave, that they go on with the same teacher alone, and that two workers do as one."""

import csv
import dataclasses
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import keras
import numpy as np
import pytest

from polynet_keras.data.augmentation import Augmentation
from polynet_keras.data.protocol import Preprocessing
from polynet_keras.pretrained import ModelCard
from polynet_keras.training.recipes.optimizer import OptimizerSettings
from polynet_keras.training.recipes.recipe import Recipe
from polynet_keras.training.recipes.regularization import Regularization
from polynet_keras.training.recipes.teacher import find_teacher, teacher_hash
from polynet_keras.training.runs.checking import check_run
from polynet_keras.training.runs.train import train
from tests.evaluation.test_predicting import save_run
from tests.reference import few_layers, randomize
from tests.training.runs.test_train import few_digits, history, of_few_layers  # noqa: F401

DIGITS = tuple("0123456789")
GREY = Preprocessing(75, 86, (0.5,), (0.5,))


@pytest.fixture
def teacher(tmp_path):
    """A run's folder of the digits, with random weights."""
    folder = tmp_path / "teacher"
    folder.mkdir()
    model = few_layers(input_shape=(75, 75, 1), classes=10)
    randomize(model, 7)
    save_run(folder, model, class_names=DIGITS, preprocessing=GREY)
    return folder


def recipe_of(teacher, **settings):
    regularization = Regularization(label_smoothing=0.1, teacher=str(teacher), teacher_temperature=2.0)
    return Recipe(epochs=2, batch_size=32, regularization=regularization, **settings)


@pytest.mark.slow
def test_what_a_taught_run_leaves(tmp_path, teacher, of_few_layers, few_digits):  # noqa: F811
    """With mixed images and averaged weights."""
    recipe = recipe_of(teacher, augmentation=Augmentation(mixup=0.2), optimizer=OptimizerSettings(ema_momentum=0.5))
    result = train(recipe, tmp_path / "run")
    assert result.card.teacher_hash == teacher_hash(find_teacher(teacher))
    assert len(result.card.teacher_hash) == 64
    assert ModelCard.load(tmp_path / "run") == result.card
    model = keras.saving.load_model(tmp_path / "run" / "model.keras")
    assert len(model.weights) == len(few_layers().weights)
    # What is validated is the cross-entropy of the labels alone.
    rows = history(tmp_path / "run")
    assert float(rows[-1]["val_accuracy"]) == pytest.approx(result.card.held_out_correct / 16)
    without = dataclasses.replace(recipe, regularization=Regularization(label_smoothing=0.1))
    train(without, tmp_path / "alone")
    assert history(tmp_path / "alone")[0]["loss"] != rows[0]["loss"]
    assert ModelCard.load(tmp_path / "alone").teacher_hash == ""


@pytest.mark.slow
def test_a_run_goes_on_with_the_same_teacher_alone(tmp_path, teacher, of_few_layers, few_digits, monkeypatch):  # noqa: F811
    recipe = recipe_of(teacher)
    save = keras.Model.save

    def breaks(self, path):
        if path.name == "model.keras":
            raise RuntimeError("the machine is gone")
        save(self, path)

    with monkeypatch.context() as patch:
        patch.setattr(keras.Model, "save", breaks)
        with pytest.raises(RuntimeError, match="gone"):
            train(recipe, tmp_path / "run")
    shutil.copytree(tmp_path / "run", tmp_path / "other")
    shutil.copy(teacher / "model.keras", tmp_path / "first.keras")
    other = few_layers(input_shape=(75, 75, 1), classes=10)
    randomize(other, 8)
    other.save(teacher / "model.keras")
    with pytest.raises(
        ValueError, match=r"fingerprint '\w{64}, teacher \w{64}', but this one has '\w{64}, teacher \w{64}'"
    ):
        train(recipe, tmp_path / "other")
    shutil.copy(tmp_path / "first.keras", teacher / "model.keras")
    train(recipe, tmp_path / "run")
    assert len(history(tmp_path / "run")) == 2


def test_older_recipes_keep_their_fingerprints():
    settings = dataclasses.asdict(Recipe())
    assert settings["regularization"]["teacher"] is None
    assert Recipe().fingerprint == Recipe(regularization=Regularization()).fingerprint
    taught = [Regularization(teacher="a"), Regularization(teacher="b"), Regularization(teacher="a", teacher_weight=0.5)]
    assert len({Recipe(regularization=one).fingerprint for one in (Regularization(), *taught)}) == 4


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"teacher": 3}, "teacher=3 must be the name of a checkpoint, a file or a run folder"),
        ({"teacher": "a", "teacher_temperature": 0}, "teacher_temperature=0.0 must be a finite number > 0"),
        ({"teacher": "a", "teacher_weight": 1.5}, "teacher_weight=1.5 must be a finite number > 0 and ≤ 1"),
        ({"teacher_weight": 0.5}, "teacher_weight=0.5 needs a teacher"),
        ({"teacher_temperature": 2.0}, "teacher_temperature=2.0 needs a teacher"),
        ({"teacher": "", "teacher_temperature": 2.0}, "teacher_temperature=2.0 needs a teacher"),
    ],
)
def test_settings_that_are_refused(settings, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        Regularization(**settings)


def test_a_teacher_in_one_of_the_losses_tells_no_gap():
    settings = Regularization(teacher="a", stochastic_depth="adaptive", gap_metric="loss")
    with pytest.raises(ValueError, match=r"^gap_metric='loss' with a teacher: it is in one of the losses only; use"):
        Recipe(regularization=settings)


def test_teachers_that_are_none_are_refused_at_once(tmp_path, teacher):
    (tmp_path / "net.weights.h5").write_bytes(b"")
    shutil.copy(teacher / "model.keras", tmp_path / "bare.keras")
    for name, message in (
        ("gone", "teacher='.*gone' is not a file or folder in"),
        ("net.weights.h5", "is a weights file; expected a run folder, a .keras file with a card, or a name of"),
        ("bare.keras", "no model card can be read: "),
    ):
        with pytest.raises(ValueError, match=message):
            check_run(recipe_of(tmp_path / name))
    check_run(recipe_of(teacher))


def command(teacher, *flags):
    return [
        *("polynet", "train", "--width=0.0625", "--structure=1 x [2-way] | 1 x [ir] | 1 x [ir]", "--batch_size=64"),
        *("--label_smoothing=0.1", "--mixup=0.2", "--ema_momentum=0.9", f"--teacher={teacher}", *flags),
    ]


@pytest.mark.slow
def test_the_same_bits_with_and_without_an_interruption(tmp_path, teacher):
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}

    def start(name):
        words = [*command(teacher, "--deterministic", "--epochs=3"), f"--run_dir={tmp_path / name}"]
        return subprocess.Popen(words, env=environment, stderr=subprocess.DEVNULL)

    assert start("whole").wait() == 0
    process = start("broken")
    written = tmp_path / "broken" / "history.csv"
    while process.poll() is None and not (written.is_file() and len(written.read_text().splitlines()) > 1):
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    assert process.wait() == 75
    assert start("broken").wait() == 0
    expected = keras.saving.load_model(tmp_path / "whole" / "model.keras")
    model = keras.saving.load_model(tmp_path / "broken" / "model.keras")
    for found, wanted in zip(model.weights, expected.weights, strict=True):
        np.testing.assert_array_equal(found, wanted, err_msg=wanted.path)
    assert history(tmp_path / "broken") == history(tmp_path / "whole")


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["float32", "mixed_bfloat16"])
def test_two_workers_learn_from_a_teacher_as_one_does(tmp_path, teacher, precision):
    """The same losses of the same global batches. The weights do not change: rounding would grow."""
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    still = ("--synchronized", "--optimizer=sgd", "--learning_rate=1e-12", "--schedule=constant", "--warmup_share=0")
    losses = []
    for workers in (1, 2):
        words = command(
            teacher, *still, "--epochs=1", f"--precision={precision}", f"--run_dir={tmp_path / str(workers)}"
        )
        if workers > 1:
            words = ["polynet", "launch", f"--workers={workers}", "--", *words[1:]]
        done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[-3000:]
        with open(tmp_path / str(workers) / "history.csv") as file:
            losses.append([float(row["loss"]) for row in csv.DictReader(file)])
    assert losses[1] == pytest.approx(losses[0], rel=1e-4 if precision == "float32" else 2e-2)
