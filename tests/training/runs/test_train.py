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

import keras
import numpy as np
import pytest
from PIL import Image

from polynet_keras.cluster.failures import PeerFailure
from polynet_keras.cluster.rendezvous import MissingWorkerError
from polynet_keras.data.augmentation import Augmentation
from polynet_keras.data.sources import open_source
from polynet_keras.models.parts import part_of
from polynet_keras.pretrained import ModelCard
from polynet_keras.pretrained.model_source import newest_run
from polynet_keras.training.recipes.optimizer import OptimizerSettings
from polynet_keras.training.recipes.recipe import Recipe
from polynet_keras.training.recipes.regularization import Regularization
from polynet_keras.training.recipes.schedule import ScheduleSettings
from polynet_keras.training.recipes.start import Start
from polynet_keras.training.runs.execution import Execution
from polynet_keras.training.runs.preparation import compiled_model
from polynet_keras.training.runs.train import train
from polynet_keras.training.stochastic_depth import set_drop_rate
from tests.reference import few_layers

TINY = {"structure": "1 x [ir] | 1 x [ir] | 1 x [ir]", "width": 0.1, "epochs": 1}


@pytest.fixture
def of_few_layers(monkeypatch):
    """Runs train a few layers in place of a PolyNet: what they do around the network is the same."""
    monkeypatch.setattr("polynet_keras.training.runs.preparation.PolyNet", few_layers)


@pytest.fixture
def few_digits(monkeypatch):
    """Runs on the digits take a part of them."""
    source = open_source("digits", 0)
    part = dataclasses.replace(
        source,
        training=source.training.subset(np.arange(64), "training"),
        held_out=source.held_out.subset(np.arange(16), "held out"),
    )
    monkeypatch.setattr("polynet_keras.training.runs.opening.open_source", lambda *arguments: part)


def history(folder):
    """Of each epoch, what is no measurement of time."""
    with open(folder / "history.csv") as file:
        return [{name: row[name] for name in row if name != "images_per_second"} for row in csv.DictReader(file)]


def test_what_a_run_leaves(digits_run):
    folder = digits_run.folder
    assert {path.name for path in folder.iterdir()} == {
        "curves.png", "history.csv", "model.json", "model.keras", "recipe.json", "samples", "tensorboard",
    }  # fmt: skip
    assert Recipe.load(folder / "recipe.json").width == 0.1
    assert ModelCard.load(folder) == digits_run.card
    with open(folder / "history.csv") as file:
        (row,) = csv.DictReader(file)
    assert {"epoch", "loss", "accuracy", "val_loss", "val_accuracy", "learning_rate", "images_per_second"} == set(row)
    assert 0 < float(row["images_per_second"]) < float("inf")  # what it is: test_progress.py
    assert (digits_run.card.epoch, digits_run.card.validation) == (1, 0)  # the last one
    assert sum(digits_run.card.training_counts) == 1438
    assert float(row["val_accuracy"]) == pytest.approx(digits_run.card.held_out_correct / 359, abs=1e-6)
    assert Image.open(folder / "curves.png").size == (1800, 480)
    assert list((folder / "tensorboard").rglob("events.out.tfevents.*"))
    assert len(digits_run.samples) == 10
    assert all(Path(sample).is_file() for sample in digits_run.samples)
    model = keras.saving.load_model(folder / "model.keras")
    assert model.output_shape == (None, 10)
    assert model.optimizer is not None


def bright_and_dark(folder, count):
    """So many pictures of each of two classes."""
    rng = np.random.default_rng(0)
    for name, level in (("bright", 200), ("dark", 50)):
        (folder / name).mkdir(parents=True)
        for i in range(count):
            pixels = (rng.normal(level, 10, (20 + i, 40, 3))).clip(0, 255).astype("uint8")
            Image.fromarray(pixels).save(folder / name / f"{i}.jpg")


@pytest.mark.slow
def test_a_run_learns_on_a_folder_of_images(tmp_path):
    """Dark against bright pictures: what ten epochs must tell apart, through files, split and pipeline.

    Four epochs do so with most orders of sums alone.
    """
    bright_and_dark(tmp_path / "data", 30)
    schedule = ScheduleSettings(learning_rate=0.01)
    recipe = Recipe(data=str(tmp_path / "data"), **{**TINY, "epochs": 10}, batch_size=8, schedule=schedule)
    result = train(recipe, tmp_path / "run")
    assert result.card.class_names == ("bright", "dark")
    assert result.card.held_out == 12
    assert result.card.held_out_correct == 12
    assert {Path(sample).stem.split("-is-")[1] for sample in result.samples} == {"bright", "dark"}
    assert {Path(sample).parent for sample in result.samples} == {tmp_path / "run" / "samples"}


def test_an_unreadable_training_image_is_named(tmp_path, of_few_layers):
    for name in ("a", "b"):
        (tmp_path / "data" / name).mkdir(parents=True)
        for i in range(4):
            Image.new("RGB", (20, 20)).save(tmp_path / "data" / name / f"{i}.png")
    for path in (tmp_path / "data" / "b").iterdir():
        path.write_text("no image")
    with pytest.raises(ValueError, match=r"data/b/\d.png: cannot be read as an image"):
        train(Recipe(data=str(tmp_path / "data"), **TINY), tmp_path / "run")
    assert not (tmp_path / "run").exists()  # the same command works once the image is mended


@pytest.mark.slow
def test_a_run_goes_on_without_the_images_that_cannot_be_read(tmp_path):
    for name in ("a", "b"):
        (tmp_path / "data" / name).mkdir(parents=True)
        for i in range(10):
            Image.new("RGB", (20, 20)).save(tmp_path / "data" / name / f"{i}.png")
    recipe = Recipe(data=str(tmp_path / "data"), **TINY, batch_size=1, on_error="skip")
    held_out = open_source(recipe.data, recipe.seed).held_out
    Path(held_out.name_of(0)).write_text("no image")
    assert train(recipe, tmp_path / "run").card.held_out == 3
    for i in range(4):
        Path(held_out.name_of(i)).write_text("no image")
    with pytest.raises(ValueError, match="held out has no image that can be read"):
        train(recipe, tmp_path / "none")
    assert len(history(tmp_path / "none")) == 1  # the training is not lost


@pytest.mark.slow
@pytest.mark.parametrize("where", ["on_train_batch_end", "on_test_batch_end"])
def test_a_run_that_was_interrupted_goes_on(tmp_path, monkeypatch, digits_run, where):
    """In the second epoch, of whose weights the averages are validated; the file that it began with is gone by then."""
    file = shutil.copy(digits_run.folder / "model.keras", tmp_path / "start.keras")
    optimizer = OptimizerSettings(ema_momentum=0.9)
    recipe = Recipe(**{**TINY, "epochs": 2}, batch_size=256, start=Start(str(file)), optimizer=optimizer)
    recipe = recipe.replaced({"normalization_momentum": 0.8})
    whole = train(recipe, tmp_path / "whole")

    def interrupt(self, batch, logs=None):
        if self.model.optimizer.iterations > 8:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(keras.callbacks.TensorBoard, where, interrupt)
        with pytest.raises(KeyboardInterrupt):
            train(recipe, tmp_path / "run")
    assert not (tmp_path / "run" / "model.json").exists()
    os.remove(file)
    result = train(recipe, tmp_path / "run")
    assert result.card.held_out_correct == whole.card.held_out_correct
    assert history(tmp_path / "run") == history(tmp_path / "whole")
    saved = keras.saving.load_model(tmp_path / "run" / "model.keras")
    assert momenta(saved) == {0.9}  # for a training that may be shorter


def test_an_interrupt_in_the_first_epoch_leaves_nothing(tmp_path, monkeypatch, of_few_layers):
    class Interrupt(keras.callbacks.TensorBoard):
        def on_train_batch_end(self, batch, logs=None):
            raise KeyboardInterrupt

    monkeypatch.setattr(keras.callbacks, "TensorBoard", Interrupt)
    with pytest.raises(KeyboardInterrupt):
        train(Recipe(**TINY), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_disk_without_room_for_the_model_is_told_first(tmp_path, monkeypatch, of_few_layers, few_digits):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=10))
    with pytest.raises(ValueError, match=r"has 0.0 MB of free space, and the model alone takes \d"):
        train(Recipe(**TINY), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_disk_without_room_for_the_best_weights_is_told_first(tmp_path, monkeypatch, of_few_layers):
    """One that has room for the model alone."""
    sizes = []

    def built(*arguments, **options):
        model = compiled_model(*arguments, **options)
        sizes.append(sum(np.asarray(variable).nbytes for variable in model.variables))
        return model

    monkeypatch.setattr("polynet_keras.training.runs.train.compiled_model", built)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=2 * sizes[-1] - 1))
    recipe = Recipe(**TINY, validation_share=0.2)
    with pytest.raises(ValueError, match=r"MB of free space, and a checkpoint of the model with its best weights take"):
        train(recipe, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_disk_that_is_full_at_the_end_loses_nothing(tmp_path, monkeypatch, of_few_layers, few_digits):
    def save(self, path):
        Path(path).write_text("a part")
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(keras.Model, "save", save)
        with pytest.raises(ValueError, match=r"run_dir=.* at the end of the training: No space left .* resumes from"):
            train(Recipe(**TINY), tmp_path / "run")
    assert not (tmp_path / "run" / "model.keras").exists()
    assert train(Recipe(**TINY), tmp_path / "run").card.held_out == 16
    assert len(history(tmp_path / "run")) == 1


@pytest.mark.slow
def test_same_recipe_same_run(tmp_path, of_few_layers, monkeypatch):
    """Weights, order and crops, as the losses after each step of an epoch tell them."""
    losses = []

    class Look(keras.callbacks.TensorBoard):
        def on_train_batch_end(self, batch, logs=None):
            losses.append(logs["loss"])

        def on_epoch_end(self, epoch, logs=None):
            raise KeyboardInterrupt

    monkeypatch.setattr(keras.callbacks, "TensorBoard", Look)
    bright_and_dark(tmp_path / "data", 10)
    for name, seed in (("first", 0), ("again", 0), ("other", 1)):
        recipe = Recipe(data=str(tmp_path / "data"), **TINY, batch_size=4, seed=seed)
        with pytest.raises(KeyboardInterrupt):
            train(recipe, tmp_path / name)
    first, again, other = np.split(np.array(losses), 3)
    assert len(first) == 4
    np.testing.assert_allclose(again, first, rtol=1e-4)  # sums in parallel may round in another order
    assert np.abs(other / first - 1).max() > 1e-2


@pytest.mark.parametrize("module", ["PIL", "matplotlib", "sklearn", "tensorboard"])
def test_a_missing_extra_is_told_before_any_work(tmp_path, monkeypatch, module):
    monkeypatch.setitem(sys.modules, module, None)
    package = {"PIL": "pillow", "sklearn": "scikit-learn"}.get(module, module)
    with pytest.raises(ValueError, match=f"not installed: {package}; .* pip install {package}"):
        train(Recipe(), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_default_folders(tmp_path, monkeypatch, digits_run):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="no trained model in runs/; run `polynet train` first"):
        newest_run()
    shutil.copytree(digits_run.folder, tmp_path / "runs" / "older")
    (tmp_path / "runs" / "unfinished").mkdir()
    (tmp_path / "runs" / "unfinished" / "model.keras").write_text("")
    assert newest_run() == Path("runs/older")
    shutil.copytree(digits_run.folder, tmp_path / "runs" / "newer")
    (tmp_path / "runs" / "newer" / "model.json").touch()
    assert newest_run() == Path("runs/newer")


@pytest.mark.slow
def test_a_run_that_broke_off_goes_on_in_its_folder(tmp_path, monkeypatch, of_few_layers):
    """An error in the second epoch; then the same command, beside a run that nothing happened to."""
    recipe = Recipe(**{**TINY, "epochs": 2}, batch_size=256)
    execution = Execution(save_every_steps=2)
    whole = train(recipe, tmp_path / "whole", execution)

    def breaks(self, batch, logs=None):
        if self.model.optimizer.iterations == 9:  # of 6 steps an epoch: the checkpoint is of 8
            raise RuntimeError("the machine is gone")

    with monkeypatch.context() as patch:
        patch.setattr(keras.callbacks.CSVLogger, "on_train_batch_end", breaks)
        with pytest.raises(RuntimeError, match="the machine is gone"):
            train(recipe, tmp_path / "run", execution)
    assert (tmp_path / "run" / "checkpoints").is_dir()
    with pytest.raises(ValueError, match=r"holds a run of another recipe \(epochs=2, here 3\)"):
        train(Recipe(**{**TINY, "epochs": 3}, batch_size=256), tmp_path / "run", execution)
    result = train(recipe, tmp_path / "run", execution)
    assert result.card.held_out_correct == whole.card.held_out_correct
    assert history(tmp_path / "run") == history(tmp_path / "whole")
    assert not (tmp_path / "run" / "checkpoints").exists()
    with pytest.raises(ValueError, match="holds a finished run of this recipe"):
        train(recipe, tmp_path / "run", execution)
    assert train(recipe, tmp_path / "run", Execution(attempt=1)).card == result.card  # a supervisor's restart


@pytest.mark.slow
def test_a_run_that_broke_off_when_it_was_nearly_done_goes_on(tmp_path, monkeypatch, of_few_layers):
    """The model and the samples are there, the card, which says that the run is done, is half written."""
    recipe, folder = Recipe(**TINY, batch_size=256), tmp_path / "run"
    write = Path.write_text

    def breaks(path, text):
        if path.name != "model.json":
            return write(path, text)
        write(path, text[:20])
        raise RuntimeError("the machine is gone")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_text", breaks)
        with pytest.raises(RuntimeError, match="the machine is gone"):
            train(recipe, folder, Execution(save_every_steps=4))
    assert (folder / "samples").is_dir()
    assert train(recipe, folder, Execution(save_every_steps=4)).card == ModelCard.load(folder)
    assert len(list((folder / "samples").iterdir())) == 10


def test_a_worker_that_is_late_in_a_restart_is_waited_for_again(tmp_path, monkeypatch):
    def open_strategy(*_):
        raise MissingWorkerError("worker 1 (b:2) did not come within 300 s")

    monkeypatch.setattr("polynet_keras.training.runs.opening.open_strategy", open_strategy)
    with pytest.raises(MissingWorkerError):
        train(Recipe(**TINY), tmp_path / "run")
    with pytest.raises(PeerFailure, match="did not come within 300 s"):
        train(Recipe(**TINY), tmp_path / "run", Execution(attempt=1))


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings",
    [
        {"optimizer": OptimizerSettings("sgd", gradient_accumulation_steps=2, global_clipnorm=1.0)},
        {"optimizer": OptimizerSettings("adamw"), "regularization": Regularization(0.01, label_smoothing=0.1)},
        {"optimizer": OptimizerSettings("lamb"), "precision": "mixed_bfloat16", "remat": "all"},
        {
            "augmentation": Augmentation(mixup=0.2),
            "regularization": Regularization(label_smoothing=0.1, stochastic_depth="on", max_drop_rate=0.2),
            "schedule": ScheduleSettings("step", decay_epochs=1.5, decay_factor=0.1),
        },
    ],
    ids=["sgd, accumulation", "adamw, smoothing", "lamb, bfloat16, remat", "mixup, drops, step"],
)
def test_what_recipes_ask_for_works_together(tmp_path, settings):
    recipe = Recipe(**{**TINY, "epochs": 2}, batch_size=64, **settings)
    result = train(recipe, tmp_path / "run")
    assert Recipe.load(tmp_path / "run" / "recipe.json") == recipe
    rows = history(tmp_path / "run")
    assert float(rows[-1]["loss"]) < float(rows[0]["loss"])
    rates = [float(row["learning_rate"]) for row in rows]  # after each epoch
    assert rates == pytest.approx([0.00119, 0.0] if recipe.schedule.name == "cosine" else [0.002, 0.0002], abs=1e-5)
    # What was validated last is what is saved.
    assert result.card.held_out_correct == round(float(rows[-1]["val_accuracy"]) * 359)
    model = keras.saving.load_model(tmp_path / "run" / "model.keras")
    assert model.get_layer("stem_conv1").compute_dtype == recipe.precision.removeprefix("mixed_")
    assert model.remat == recipe.remat
    assert keras.config.dtype_policy().name == "float32"  # the process's own


@pytest.mark.slow
def test_half_precision_scales_its_loss(tmp_path):
    """With averages of the weights over accumulated gradients; few images, for float16 is slow on processors."""
    bright_and_dark(tmp_path / "data", 15)
    optimizer = OptimizerSettings(ema_momentum=0.5, gradient_accumulation_steps=2, global_clipnorm=1.0)
    recipe = Recipe(
        data=str(tmp_path / "data"),
        **{**TINY, "epochs": 2},
        batch_size=6,
        precision="mixed_float16",
        optimizer=optimizer,
    )
    result = train(recipe, tmp_path / "run")
    rows = history(tmp_path / "run")
    assert result.card.held_out_correct == round(float(rows[-1]["val_accuracy"]) * result.card.held_out)
    keras.config.set_dtype_policy("mixed_float16")
    try:
        model = keras.saving.load_model(tmp_path / "run" / "model.keras")
    finally:
        keras.config.set_dtype_policy("float32")
    assert isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer)
    assert model.get_layer("stem_conv1").compute_dtype == "float16"
    assert {variable.dtype for variable in model.trainable_variables} == {"float32"}
    # The average is what was saved: Keras puts it in the place of the weights.
    averages = model.optimizer.inner_optimizer._model_variables_moving_average
    for average, weight in zip(averages, model.trainable_variables, strict=True):
        np.testing.assert_array_equal(average, weight)


@pytest.mark.slow
def test_a_run_starts_with_another_ones_weights(tmp_path, digits_run, few_digits):
    """Frozen up to the last stage, whose normalizations are too: all before it stays what it was."""
    start = Start(str(digits_run.folder), frozen_through="reduction_b", frozen_normalizations=True)
    recipe = Recipe(**TINY, batch_size=256, residual_scale=0.9, start=start)
    train(recipe, tmp_path / "run")
    before = keras.saving.load_model(digits_run.folder / "model.keras")
    after = keras.saving.load_model(tmp_path / "run" / "model.keras")
    changed = {
        (part_of(layer.name), type(layer))
        for layer in before.layers
        for old, new in zip(layer.weights, after.get_layer(layer.name).weights, strict=True)
        if "seed" not in old.path and not np.array_equal(old, new)
    }
    assert changed == {("stage_c", keras.layers.Conv2D), ("predictions", keras.layers.Dense)}


@pytest.mark.slow
def test_stochastic_depth_is_as_the_recipe_says_and_not_as_the_weights(tmp_path, digits_run):
    model = keras.saving.load_model(digits_run.folder / "model.keras", compile=False)
    set_drop_rate(model, 0.5)
    model.save(tmp_path / "dropped.keras")
    start = Start(str(tmp_path / "dropped.keras"))
    source = open_source("digits", 0)
    for regularization, active in ((Regularization(), False), (Regularization(stochastic_depth="on"), True)):
        model = compiled_model(Recipe(**TINY, start=start, regularization=regularization), source, 10)
        assert bool(model.get_layer("stage_c_01_sum_f").active.numpy()) == active


@pytest.mark.slow
def test_an_optimizer_goes_on_where_it_was(tmp_path, digits_run, monkeypatch):
    """Its mean squares are there before the first step; its count of steps begins anew."""
    seen = {}

    class Look(keras.callbacks.TensorBoard):
        def on_train_begin(self, logs=None):
            seen.update({v.name: v.numpy() for v in self.model.optimizer.variables})
            raise KeyboardInterrupt

    monkeypatch.setattr(keras.callbacks, "TensorBoard", Look)
    start = Start(str(digits_run.folder), carry_optimizer=True)
    with pytest.raises(KeyboardInterrupt):
        train(Recipe(**TINY, start=start), tmp_path / "run")
    before = keras.saving.load_model(digits_run.folder / "model.keras").optimizer
    velocities = [v for v in before.variables if v.name.endswith("velocity")]
    assert len(velocities) > 50
    for variable in velocities:
        np.testing.assert_array_equal(seen[variable.name], variable)
    assert seen["iteration"] == 0
    with pytest.raises(ValueError, match=r"trained with RMSprop, the target is compiled with SGD"):
        train(Recipe(**TINY, start=start, optimizer=OptimizerSettings("sgd")), tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_a_run_without_an_update_is_refused_and_one_too_short_for_its_averages_warned_of(caplog, of_few_layers):
    source = open_source("digits", 0)
    with pytest.raises(ValueError, match="gradient_accumulation_steps=50 is more than the 46 steps of"):
        compiled_model(Recipe(**TINY, optimizer=OptimizerSettings(gradient_accumulation_steps=50)), source, 46)
    compiled_model(Recipe(**TINY, optimizer=OptimizerSettings(ema_momentum=0.99)), source, 46)
    assert "after the run's 46 updates the averages still hold 63 % of the first weights" in caplog.text
    caplog.clear()
    compiled_model(Recipe(**TINY, optimizer=OptimizerSettings(ema_momentum=0.9)), source, 46)
    assert "averages" not in caplog.text
    compiled_model(Recipe(**TINY, normalization_momentum=0.99), source, 46)
    assert "normalization_momentum=0.99: after the run's 46 steps the moving statistics still hold 63 %" in caplog.text


def test_the_moving_statistics_have_the_momentum_of_the_recipe():
    """With a momentum of 0 they are those of the last batch alone."""
    source = open_source("digits", 0)
    model = compiled_model(Recipe(**TINY, normalization_momentum=0.0), source, 46)
    images = keras.random.normal((4, 75, 75, 1), seed=1)
    model(images, training=True)
    outputs = model.get_layer("stem_conv1")(images)
    np.testing.assert_allclose(model.get_layer("stem_conv1_bn").moving_mean, np.mean(outputs, (0, 1, 2)), atol=1e-5)
    assert momenta(model) == {0.0}
    assert momenta(compiled_model(Recipe(**TINY), source, 46)) == {0.9}


def momenta(model):
    return {layer.momentum for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)}


DROPPING = ["--stochastic_depth=adaptive", "--gap_threshold=0.001", "--gap_metric=loss", "--gap_window=1"]
OF_TODAY = ["--loss=binary", "--target_threshold=0.2", "--mixup=0.1", "--cutmix=1", "--repeats=2"]
OF_TODAY += ["--evaluation_size=83", "--optimizer=lamb", "--weight_decay=0.02"]


@pytest.mark.slow
@pytest.mark.parametrize(
    "flags",
    [DROPPING, [*DROPPING, "--validation_share=0.2", "--patience=3"], OF_TODAY],
    ids=["last", "best", "of today"],
)
def test_the_same_bits_with_and_without_an_interruption(tmp_path, flags):
    """`--deterministic`, which holds for a process: each run has one of its own. SIGTERM, then the same command."""
    command = ["polynet", "train", "--deterministic", "--width=0.1", "--epochs=4", "--batch_size=64"]
    command += ["--structure=1 x [2-way] | 1 x [poly-2] | 1 x [ir]", "--ema_momentum=0.9", "--global_clipnorm=1"]
    command += ["--gradient_accumulation_steps=2", *flags]
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}

    def start(name):
        with open(tmp_path / f"{name}.log", "w") as log:
            return subprocess.Popen([*command, f"--run_dir={tmp_path / name}"], env=environment, stderr=log)

    assert start("whole").wait() == 0
    process = start("broken")
    written = tmp_path / "broken" / "history.csv"
    while process.poll() is None and not (written.is_file() and len(written.read_text().splitlines()) > 1):
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    assert process.wait() == 75
    assert not (tmp_path / "broken" / "model.json").exists()
    resumed_by = f"stopped: the same command with --run_dir={tmp_path / 'broken'} resumes from the last checkpoint"
    assert resumed_by in (tmp_path / "broken.log").read_text()
    assert start("broken").wait() == 0
    expected = keras.saving.load_model(tmp_path / "whole" / "model.keras")
    model = keras.saving.load_model(tmp_path / "broken" / "model.keras")
    for find in (lambda model: model.weights, lambda model: model.optimizer.variables):
        for found, wanted in zip(find(model), find(expected), strict=True):
            np.testing.assert_array_equal(found, wanted, err_msg=wanted.path)
    assert history(tmp_path / "broken") == history(tmp_path / "whole")
    assert flags == OF_TODAY or float(history(tmp_path / "whole")[-1]["drop_rate"]) > 0
