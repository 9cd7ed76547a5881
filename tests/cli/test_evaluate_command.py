import contextlib
import csv
import dataclasses
import shutil

import numpy as np
import pytest
from PIL import Image

from polynet_keras.cli.main import main
from polynet_keras.evaluation.metrics import Counts
from polynet_keras.pretrained import ModelCard
from polynet_keras.training.recipes.recipe import Recipe
from polynet_keras.training.runs.train import train
from tests.reference import few_layers


def succeeds(capsys, *argv):
    assert main([str(argument) for argument in argv]) == 0
    return capsys.readouterr().out


def fails(capsys, *argv):
    assert main(["evaluate", *map(str, argv)]) == 1
    return capsys.readouterr().err.splitlines()[-1]


def test_a_run_is_evaluated_on_what_it_held_out(capsys, digits_run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    output = succeeds(capsys, "evaluate", f"--run_dir={digits_run.folder}", "--report=report.html")
    card = digits_run.card
    assert "dataset:     digits, held out: 359 images\n" in output
    assert f"({card.held_out_correct} of 359 images; 95 % interval" in output
    assert "confused:" in output
    with open("results.csv") as file:
        (row,) = csv.DictReader(file)
    assert (row["images"], row["top1_hits"], row["crops"]) == ("359", str(card.held_out_correct), "1")
    assert row["structure"] == card.structure
    assert int(row["macs"]) > 0
    assert "digit-" in (tmp_path / "report.html").read_text()
    assert len(succeeds(capsys, "results").splitlines()) == 2


@pytest.fixture(scope="module")
def small_run(tmp_path_factory):
    """A folder with the run `runs/small` and the few pictures in `data` that it was trained on."""
    folder = tmp_path_factory.mktemp("small")
    for name in ("3", "4"):
        (folder / "data" / name).mkdir(parents=True)
        for i in range(5):
            Image.fromarray(np.full((9, 9), 50 * i, "uint8")).save(folder / "data" / name / f"{i}.png")
    with contextlib.chdir(folder), pytest.MonkeyPatch.context() as patch:
        # A net of few layers is loaded and compiled at once.
        patch.setattr("polynet_keras.training.runs.preparation.PolyNet", few_layers)
        train(Recipe(data="data", epochs=1), "runs/small")
    return folder


@pytest.fixture
def here(small_run, tmp_path, monkeypatch):
    """The working folder of a test: a copy of them."""
    shutil.copytree(small_run, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.slow
def test_ten_crops_are_pooled_in_two_ways_from_scores_that_are_kept(capsys, here):
    for pooling in ("mean", "max"):
        succeeds(capsys, "evaluate", "--crops=10", f"--pooling={pooling}", "--scores=scores.npz")
        assert (here / "scores.npz").is_file()
    table = succeeds(capsys, "results")
    assert [line.split()[1] for line in table.splitlines()] == ["crops", "10", "10"]
    with open("results.csv") as file:
        mean, maximum = csv.DictReader(file)
    assert (mean["pooling"], maximum["pooling"]) == ("mean of probabilities", "max of probabilities")
    assert mean["loss"] != maximum["loss"]
    assert mean["seconds"] == maximum["seconds"]  # that the network took: it ran once
    succeeds(capsys, "evaluate", "--crops=10", "--scores=scores.npz", "--results=")
    assert len(succeeds(capsys, "results").splitlines()) == 3


def test_the_newest_run_is_taken(capsys, here):
    shutil.copytree(here / "runs" / "small", here / "runs" / "newer")
    (here / "runs" / "newer" / "model.json").touch()
    assert "model:       runs/newer\n" in succeeds(capsys, "evaluate")


def test_class_names_are_printed_without_what_commands_a_terminal(capsys, here, monkeypatch):
    card = ModelCard.load(here / "runs" / "small")
    dataclasses.replace(card, class_names=("3", "4\u202e\u200f")).save(here / "runs" / "small")
    (here / "data" / "4").rename(here / "data" / "4\u202e\u200f")
    monkeypatch.setattr(Counts, "worst_pairs", lambda self, count: ((0, 1, 2),))
    output = succeeds(capsys, "evaluate", "--data=data", "--split=all", "--results=")
    assert r"confused:    3 taken for 4\u202e\u200f: 2" in output.splitlines()


def test_a_run_is_shown_the_crops_of_its_recipe(capsys, here):
    run = here / "runs" / "small"
    Recipe.load(run / "recipe.json").replaced({"crops": 10}).save(run / "recipe.json")
    assert ", 10 crop(s), " in succeeds(capsys, "evaluate", "--run_dir=runs/small")
    assert ", 1 crop(s)\n" in succeeds(capsys, "evaluate", "--run_dir=runs/small", "--crops=1")


@pytest.mark.slow
def test_a_run_skips_unreadable_images_as_its_recipe_says(capsys, here):
    run = here / "runs" / "small"
    shutil.copytree(here / "data", here / "other")
    (here / "other" / "3" / "1.png").write_text("<html>")
    assert "other/3/1.png: cannot be read as an image" in fails(capsys, "--data=other")
    Recipe.load(run / "recipe.json").replaced({"on_error": "skip"}).save(run / "recipe.json")
    assert "dataset:     other: 9 images, 1 skipped\n" in succeeds(capsys, "evaluate", "--data=other")
    assert "other/3/1.png: cannot be read as an image" in fails(capsys, "--data=other", "--on_error=error")


def test_skipped_images_are_in_the_table(capsys, digits_run, here):
    (here / "data" / "4" / "page.png").write_text("<html>")
    command = [f"--run_dir={digits_run.folder}", "--data=data"]
    assert "data/4/page.png: cannot be read as an image" in fails(capsys, *command)
    output = succeeds(capsys, "evaluate", *command, "--on_error=skip")
    assert "dataset:     data: 10 images, 1 skipped\n" in output
    assert "10 of 11" in succeeds(capsys, "results")


def test_what_a_run_was_trained_on_is_not_counted_unawares(capsys, here):
    assert "dataset:     data, held out: 2 images\n" in succeeds(capsys, "evaluate")
    assert "--data=data is what runs/small was trained on; leave --data out" in fails(capsys, "--data=data")
    assert "dataset:     data: 10 images\n" in succeeds(capsys, "evaluate", "--data=data", "--split=all")
    Image.new("L", (9, 9)).save(here / "data" / "3" / "another.png")
    assert "'data' has changed since runs/small was trained" in fails(capsys)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["digits"], "unexpected argument 'digits'; the data is named with --data"),
        (["--run_dir=a", "--weights=b"], "--run_dir and --weights name two models"),
        (["--weights=fashion_mnist"], "--weights needs --data"),
        (["--split=val"], "--split is of --data"),
        (["--report=none/report.html"], "--report=none/report.html is in no folder that exists and can be written"),
        (["--results=none/results.csv"], "--results=none/results.csv is in no folder that exists and can be written"),
        (["--pooling=median"], "pooling='median' must be one of"),
        (["--fraction=0"], "fraction=0.0 must be above 0"),
        ([], "no trained model in runs/"),
        (["--weights=fashion_mnist", "--data=nowhere"], "data='nowhere' is no folder"),
        (["--weights=fashion_mnist", "--data=digits"], "digits has 10 classes that fashion_mnist does not know"),
        (["--weights=fashion_mnist", "--data=digits", "--split=val"], "has no split val; it has all"),
    ],
)
def test_mistakes(capsys, tmp_path, monkeypatch, argv, message):
    monkeypatch.chdir(tmp_path)
    assert message in fails(capsys, *argv)
    assert not list(tmp_path.iterdir())


def test_files_that_are_there(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "report.html").touch()
    assert "--report=report.html is there already" in fails(capsys, "--report=report.html")
    (tmp_path / "results.csv").write_text("model,top1\n")
    assert "results.csv: not the columns" in fails(capsys)
