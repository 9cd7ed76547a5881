"""Which epoch a run's model is of, where a part of the training images chooses it."""

import csv
import dataclasses
from pathlib import Path

import keras
import numpy as np
import pytest
from matplotlib.figure import Figure

from polynet_keras.data.examples import Source
from polynet_keras.data.protocol import Preprocessing
from polynet_keras.loading import load_model
from polynet_keras.pretrained import ModelCard
from polynet_keras.training import Phase, fit_in_phases
from polynet_keras.training.recipes.optimizer import OptimizerSettings
from polynet_keras.training.recipes.recipe import Recipe
from polynet_keras.training.recipes.schedule import ScheduleSettings
from polynet_keras.training.runs.best_epoch import BestEpoch
from polynet_keras.training.runs.curves import plot_curves
from polynet_keras.training.runs.execution import Execution
from polynet_keras.training.runs.train import train
from tests.data.arrays import examples_of, png, random_images
from tests.reference import few_layers
from tests.training.runs.in_memory import runs_in_memory

AVERAGES = OptimizerSettings(ema_momentum=0.5)
RECIPE = Recipe(epochs=4, batch_size=16, optimizer=AVERAGES, schedule=ScheduleSettings("constant", 0.01, 0.0))
"""Of three steps an epoch. From the third epoch on the net is spoiled, so that the first or the second is the best."""
CARD = ModelCard(("a", "b"), Preprocessing(75, 86, (0.5,), (0.5,)), 0, 0)


class Spoiler(keras.callbacks.TensorBoard):
    def on_epoch_begin(self, epoch, logs=None):
        super().on_epoch_begin(epoch, logs)
        if epoch >= 2:
            self.model.layers[-1].bias.assign([100.0, 0.0])


@pytest.fixture(autouse=True, scope="module")
def few():
    with runs_in_memory({"training": 48, "validation": 20, "held_out": 10}, Spoiler) as data:
        yield data


@pytest.fixture(scope="module")
def whole(few, tmp_path_factory):
    """The folder of a run that went through."""
    folder = tmp_path_factory.mktemp("whole")
    train(RECIPE, folder)
    return folder


def history(folder):
    with open(folder / "history.csv") as file:
        return [{name: row[name] for name in row if name != "images_per_second"} for row in csv.DictReader(file)]


def best_of(rows):
    """By the rule, written once more."""
    return max(range(len(rows)), key=lambda i: (float(rows[i]["val_accuracy"]), -float(rows[i]["val_loss"]), -i))


def test_the_model_of_a_run_is_the_best_one(whole, few):
    """Of the averages of the weights, as they were validated."""
    rows = history(whole)
    best = best_of(rows)
    assert best < 2
    assert [int(row["best_epoch"]) for row in rows] == [best_of(rows[: i + 1]) for i in range(4)]
    model = keras.saving.load_model(whole / "model.keras")
    loss, accuracy = model.evaluate(few["validation"], verbose=0)
    assert (loss, accuracy) == pytest.approx([float(rows[best][f"val_{name}"]) for name in ("loss", "accuracy")])
    card = ModelCard.load(whole)
    assert (card.epoch, card.validation, card.validation_correct) == (best + 1, 20, round(accuracy * 20))
    # Told once, on images that chose nothing.
    accuracy = model.evaluate(few["held_out"], verbose=0)[1]
    assert (card.held_out, card.held_out_correct) == (10, round(accuracy * 10))
    assert card.held_out_fingerprint == "held_out"
    assert not list(whole.glob("best.*"))
    assert not (whole / "checkpoints").exists()


def test_a_run_is_done_though_its_best_file_cannot_be_removed(tmp_path, monkeypatch):
    """It is removed before the card says that the run is done."""
    unlink, refused = Path.unlink, []

    def refuse(self, missing_ok=False):
        if self.name == "best.keras":
            refused.append((tmp_path / "run" / "model.json").exists())
            raise PermissionError(13, "Permission denied")
        unlink(self, missing_ok)

    monkeypatch.setattr(Path, "unlink", refuse)
    card = train(dataclasses.replace(RECIPE, epochs=1), tmp_path / "run").card
    assert refused == [False]
    assert ModelCard.load(tmp_path / "run") == card


@pytest.mark.slow
def test_patience_ends_a_run_so_many_epochs_after_its_best(tmp_path, whole, monkeypatch, caplog):
    """Here it broke off before its model was saved; started again, it has nothing left to train."""
    recipe = dataclasses.replace(RECIPE, patience=1)
    save = keras.Model.save

    def breaks(self, path):
        if path.name == "model.keras":
            raise RuntimeError("the machine is gone")
        save(self, path)

    with monkeypatch.context() as patch, caplog.at_level("INFO", "absl"):
        patch.setattr(keras.Model, "save", breaks)
        with pytest.raises(RuntimeError, match="gone"):
            train(recipe, tmp_path / "run")
    rows = history(tmp_path / "run")
    best = best_of(history(whole))
    assert rows == history(whole)[: best + 2]
    assert f"training ends: 1 epoch without a better one than epoch {best + 1}" in caplog.text
    assert f"the model is of epoch {best + 1}, which has the best validation accuracy: " in caplog.text
    assert train(recipe, tmp_path / "run").card == ModelCard.load(whole)
    assert history(tmp_path / "run") == rows


@pytest.mark.parametrize(
    ("where", "steps"), [pytest.param("on_train_batch_end", 10, marks=pytest.mark.slow), ("on_test_batch_end", 6)]
)
def test_a_run_that_goes_on_chooses_the_same_epoch(tmp_path, whole, monkeypatch, where, steps):
    """Interrupted in the middle of an epoch after the best one, and in a validation; what was written since is lost."""

    def interrupt(self, batch, logs=None):
        if self.model.optimizer.iterations >= steps:
            raise KeyboardInterrupt

    folder, execution = tmp_path / "run", Execution(save_every_steps=2)
    with monkeypatch.context() as patch:
        patch.setattr(Spoiler, where, interrupt)
        with pytest.raises(KeyboardInterrupt):
            train(RECIPE, folder, execution)
    assert load_model(folder / "best.keras").class_names == ("class 0", "class 1")  # may be looked at
    assert ModelCard.load(folder / "best.keras").epoch == best_of(history(folder)) + 1
    with pytest.raises(ValueError, match=r"its run is not finished: .* and best\.keras in it is its best model so far"):
        load_model(folder)
    (folder / "best.keras").write_text("of an epoch that is computed again")
    assert train(RECIPE, folder, execution).card == ModelCard.load(whole)
    assert history(folder) == history(whole)
    found, expected = (load_model(one).model.weights for one in (folder, whole))
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("steps", [8, 12])
def test_a_run_that_an_older_version_began_ends_as_it_began(tmp_path, monkeypatch, caplog, steps):
    """In the third epoch or after the last one: nothing was chosen so far, and the history has no column for it."""

    def interrupt(self, batch, logs=None):
        if self.model.optimizer.iterations == steps:
            raise KeyboardInterrupt

    def breaks(self, path):
        raise RuntimeError("the machine is gone")

    folder, execution = tmp_path / "run", Execution(save_every_steps=2)
    with monkeypatch.context() as patch:
        patch.setattr("polynet_keras.training.runs.train.BestEpoch", lambda *arguments: None)
        if steps == 8:
            patch.setattr(Spoiler, "on_train_batch_end", interrupt)
        else:
            patch.setattr(keras.Model, "save", breaks)
        with pytest.raises((KeyboardInterrupt, RuntimeError)):
            train(RECIPE, folder, execution)
    with caplog.at_level("INFO", "absl"):
        card = train(RECIPE, folder, execution).card
    assert "an older version began this run" in caplog.text
    assert (card.epoch, card.validation, card.held_out) == (4, 0, 10)
    rows = history(folder)
    assert [row["epoch"] for row in rows] == ["0", "1", "2", "3"]
    assert "best_epoch" not in rows[0]


def test_patience_without_images_to_choose_by(tmp_path, monkeypatch):
    examples = examples_of([png(image) for image in random_images(2)])
    source = Source(examples, examples)
    monkeypatch.setattr("polynet_keras.training.runs.opening.open_source", lambda *arguments: source)
    with pytest.raises(ValueError, match=r"patience=2 needs images .*: use --validation_share=0.1 .* or give the data"):
        train(dataclasses.replace(RECIPE, patience=2), tmp_path / "run")
    assert not (tmp_path / "run").exists()
    with pytest.raises(ValueError, match="patience=2 needs images to choose .* validation_share=0 leaves"):
        Recipe(patience=2, validation_share=0)


@pytest.mark.parametrize(
    ("validations", "best"),
    [
        ([(0.5, 1.0), (0.6, 2.0), (0.5, 0.1)], 1),  # accuracy counts, whatever the loss
        ([(0.5, 1.0), (0.5, 0.9), (0.5, 0.95)], 1),  # then the loss
        ([(0.5, 1.0), (0.5, 1.0), (0.5, 1.0)], 0),  # then the earlier one
        ([(0.5, float("nan")), (0.5, 3.0), (0.5, float("nan"))], 1),
        ([(0.5, float("inf")), (0.5, float("nan"))], 0),
    ],
)
def test_what_is_better(tmp_path, validations, best):
    model = few_layers()
    model.compile("sgd", "sparse_categorical_crossentropy", metrics=["accuracy"])
    chooser = BestEpoch(tmp_path / "best.keras", CARD, lambda: 10)
    chooser.set_model(model)
    chooser.set_params({"epochs": 9})
    weight = model.weights[0]
    for epoch, (accuracy, loss) in enumerate(validations):
        weight.assign(np.full(weight.shape, epoch))
        chooser.on_epoch_begin(epoch)
        chooser.on_test_end({"accuracy": accuracy, "loss": loss})
        logs = {}
        chooser.on_epoch_end(epoch, logs)
    assert logs == {"best_epoch": best}
    assert chooser.card.epoch == best + 1
    chooser.restore()
    np.testing.assert_array_equal(weight, np.full(weight.shape, best))


def test_no_validation_image_can_be_read(tmp_path):
    """Keras evaluates no batch then, and gives no logs."""

    def images():
        raise ValueError("photos has no image that can be read")

    chooser = BestEpoch(tmp_path / "best.keras", CARD, images)
    with pytest.raises(ValueError, match="photos has no image that can be read"):
        chooser.on_test_end({})


@pytest.mark.slow
def test_an_epoch_is_chosen_over_several_phases(tmp_path):
    """Epochs are counted through them, and each may train other weights."""
    rng = np.random.default_rng(0)
    images, labels = rng.normal(size=(16, 12, 12, 3)).astype("float32"), rng.integers(0, 4, 16)
    model = few_layers()
    chooser = BestEpoch(tmp_path / "best.keras", CARD, lambda: 16)
    seen = fit_in_phases(
        model,
        [Phase("stem", 2, keras.optimizers.SGD(1.0)), Phase(None, 3, keras.optimizers.SGD(3.0))],
        images,
        labels,
        compile_arguments={"loss": "sparse_categorical_crossentropy", "metrics": ["accuracy"]},
        validation_data=(images, labels),
        callbacks=[chooser],
        verbose=0,
    )
    order = sorted(range(5), key=lambda i: (-seen["val_accuracy"][i], seen["val_loss"][i], i))
    assert chooser.epoch == order[0]
    chooser.restore()
    loss, accuracy = model.evaluate(images, labels, verbose=0)
    assert (loss, accuracy) == pytest.approx((seen["val_loss"][order[0]], seen["val_accuracy"][order[0]]), rel=1e-5)


def test_the_curves_show_the_best_epoch(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(Figure, "savefig", lambda self, file, **how: drawn.extend(self.axes))
    (tmp_path / "history.csv").write_text("accuracy,best_epoch,epoch,loss,val_loss\n0,0,0,2,3\n1,1,1,1,2\n1,1,2,1,4\n")
    plot_curves(tmp_path / "history.csv", tmp_path / "curves.png")
    axes, _ = drawn
    assert [line.get_label() for line in axes.lines] == ["training", "validation", "best epoch"]
    assert axes.lines[-1].get_xdata()[0] == 2  # epochs are counted from 1 in the picture


def test_a_full_disk_costs_the_file_alone(tmp_path, monkeypatch, caplog):
    save = keras.Model.save

    def full(self, path):
        if path.name == "best.keras":
            raise OSError(28, "No space left on device")
        save(self, path)

    monkeypatch.setattr(keras.Model, "save", full)
    assert train(dataclasses.replace(RECIPE, epochs=1), tmp_path / "run").card.epoch == 1
    assert "best.keras cannot be written: No space left on device" in caplog.text
