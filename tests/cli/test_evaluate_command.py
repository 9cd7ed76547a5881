import contextlib
import csv
import dataclasses
import json
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from polynet_keras.cli.evaluate import _examples, _print_comparison, _print_evaluation
from polynet_keras.data.sources import open_splits
from polynet_keras.deployment.artifact import ExportCard
from polynet_keras.evaluation.comparing import Comparison
from polynet_keras.evaluation.metrics import Counts
from polynet_keras.evaluation.paired import Paired
from polynet_keras.pretrained import ModelCard
from polynet_keras.training.recipes.recipe import Recipe
from polynet_keras.training.runs.train import train
from tests.cli.outcomes import fails_in_the_end, succeeds
from tests.deployment.exported import protocol, save_card
from tests.evaluation.test_report import evaluation_of
from tests.reference import few_layers


def fails(capsys, *argv):
    return fails_in_the_end(capsys, "evaluate", *argv)[1]


def test_a_run_is_evaluated_on_what_it_held_out(capsys, digits_run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    output = succeeds(capsys, "evaluate", f"--run_dir={digits_run.folder}", "--report=report.html")
    card = digits_run.card
    assert "dataset:     digits, held out: 359 images\n" in output
    grey = "mean 0.5 and deviation 0.5"
    assert f"protocol:    resized to 86 x 86 px, cropped to 75 px, {grey}; 1 crop\n" in output
    assert f"({card.held_out_correct} of 359 images; 95 % interval" in output
    assert "confused:" in output
    with open("results.csv") as file:
        (row,) = csv.DictReader(file)
    assert (row["images"], row["top1_hits"], row["crops"]) == ("359", str(card.held_out_correct), "1")
    assert row["structure"] == card.structure
    assert int(row["macs"]) > 0
    report = (tmp_path / "report.html").read_text()
    assert "digit-" in report
    assert report.count("Grad-CAM of <bdi>stage_a</bdi>") == 8
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


@pytest.mark.slow
def test_the_newest_run_is_taken(capsys, here):
    shutil.copytree(here / "runs" / "small", here / "runs" / "newer")
    (here / "runs" / "newer" / "model.json").touch()
    assert "model:       runs/newer\n" in succeeds(capsys, "evaluate")


@pytest.mark.slow
def test_json(capsys, here):
    """Standard output is one object, in one line; the table and the report are written all the same."""
    (line,) = succeeds(capsys, "evaluate", "--data=data", "--split=all", "--json", "--report=page.html").splitlines()
    document = json.loads(line)
    assert list(document) == ["schema", "result", "classes", "means", "confusion", "skipped"]
    with open("results.csv") as file:
        (row,) = csv.DictReader(file)
    assert list(document["result"]) == list(row)
    assert document["result"]["seconds"] is document["result"]["images_per_second"] is None  # of one batch
    assert document["result"]["images"] == sum(map(sum, document["confusion"])) == 10
    assert [(of_class["name"], of_class["images"]) for of_class in document["classes"]] == [("3", 5), ("4", 5)]
    assert (here / "page.html").is_file()


@pytest.mark.slow
def test_a_model_is_compared_with_another(capsys, here):
    """With itself, nothing is to choose; both are in the table. A run that saw some of the images is refused."""
    shutil.copytree(here / "runs" / "small", here / "runs" / "other")
    model, against = "--model=runs/small", "--against=runs/other"
    output = succeeds(capsys, "evaluate", model, against, "--results=both.csv")
    lines = output.splitlines()
    assert [line.split()[:2] for line in lines[1:3]] == [["A:", "runs/small"], ["B:", "runs/other"]]
    assert "A alone 0, B alone 0" in output
    assert "+0.00 points of top-1 for A; 95 % interval -84.19 to +84.19; McNemar's exact p-value 1\n" in output
    assert "answer:      both are right on the same images" in output
    with open("both.csv") as file:
        assert [row["model"] for row in csv.DictReader(file)] == ["runs/small", "runs/other"]
    card = ModelCard.load(here / "runs" / "other")
    dataclasses.replace(card, held_out_fingerprint="0" * 64).save(here / "runs" / "other")
    assert "--against=runs/other held out other images of data, and was trained on some" in fails(
        capsys, model, against
    )
    # A model that no run made, such as a grown one, has no held-out images; the run has.
    shutil.copy(here / "runs" / "small" / "model.keras", "grown.keras")
    card.save("grown.keras")
    said = fails(capsys, "--model=grown.keras", "--data=data", "--against=runs/small")
    assert "; swap --model and --against and leave out --data, or name other data" in said
    assert "A alone 0, B alone 0" in succeeds(capsys, "evaluate", model, "--against=grown.keras")


@pytest.mark.slow
def test_a_comparison_in_json(capsys, here):
    shutil.copytree(here / "runs" / "small", here / "runs" / "other")
    model, against = "--model=runs/small", "--against=runs/other"
    document = json.loads(succeeds(capsys, "evaluate", model, against, "--results=", "--json"))
    assert document["against"]["result"]["model"] == "runs/other"
    assert list(document["against"]) == [name for name in document if name not in ("against", "comparison")]
    comparison = document["comparison"]
    assert (comparison["images"], comparison["difference"], comparison["better"]) == (2, 0, None)
    assert comparison["difference_high"] == pytest.approx(100 * (1 - 0.025**0.5))
    card = ModelCard.load(here / "runs" / "other")
    dataclasses.replace(card, held_out_fingerprint="0" * 64).save(here / "runs" / "other")
    assert "A alone" in succeeds(capsys, "evaluate", model, against, "--data=data", "--split=all")


def test_the_speed_of_one_batch_is_not_measured(capsys):
    counts = Counts.of(np.eye(2), np.array([0, 1]))
    for seconds, said in (
        (0.5, "4.00 images/s"),
        (0.0, "not measured: only one batch ran, and its time includes comp"),
    ):
        of_75_px = '{"image_size": 75, "resize_size": 86}'
        _print_evaluation(evaluation_of(counts, seconds=seconds, protocol=of_75_px))
        assert f"speed:       {said}" in capsys.readouterr().out


def test_the_better_of_two_is_said(capsys):
    """Nine images are right by B alone, one by A alone: McNemar's p-value is 0.021."""
    results = [SimpleNamespace(model=name, loss=0.5, speed="2.00", dataset="d", crops=1) for name in "ab"]
    _print_comparison(Comparison(*(SimpleNamespace(result=result) for result in results), Paired(80, 1, 9, 10)))
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split() == [*("A:", "a", "81", "of", "100", "81.00", "72.22", "to", "87.49"), "0.5000", "2.00", *(
        "d,", "1", "crop")]  # fmt: skip
    assert lines[4] == "right:       both 80, A alone 1, B alone 9, neither 10"
    assert lines[5].startswith("difference:  -8.00 points of top-1 for A; 95 % interval -")
    assert lines[5].endswith("McNemar's exact p-value 0.021")
    assert lines[6] == "answer:      B is better: b is right more often than a"


@pytest.mark.slow
def test_class_names_are_printed_without_what_commands_a_terminal(capsys, here, monkeypatch):
    card = ModelCard.load(here / "runs" / "small")
    dataclasses.replace(card, class_names=("3", "4\u202e\u200f")).save(here / "runs" / "small")
    (here / "data" / "4").rename(here / "data" / "4\u202e\u200f")
    monkeypatch.setattr(Counts, "worst_pairs", lambda self, count: ((0, 1, 2),))
    output = succeeds(capsys, "evaluate", "--data=data", "--split=all", "--results=")
    assert r"confused:    3 taken for 4\u202e\u200f: 2" in output.splitlines()


@pytest.mark.slow
def test_a_run_is_shown_the_crops_of_its_recipe(capsys, here):
    run = here / "runs" / "small"
    Recipe.load(run / "recipe.json").replaced({"crops": 10}).save(run / "recipe.json")
    assert ", 10 crops, " in succeeds(capsys, "evaluate", "--run_dir=runs/small")
    assert ", 1 crop\n" in succeeds(capsys, "evaluate", "--run_dir=runs/small", "--crops=1")


@pytest.mark.slow
def test_a_run_skips_unreadable_images_as_its_recipe_says(capsys, here):
    run = here / "runs" / "small"
    shutil.copytree(here / "data", here / "other")
    (here / "other" / "3" / "1.png").write_text("<html>")
    assert "other/3/1.png: cannot be read as an image" in fails(capsys, "--data=other")
    Recipe.load(run / "recipe.json").replaced({"on_error": "skip"}).save(run / "recipe.json")
    assert "dataset:     other: 9 images, 1 skipped\n" in succeeds(capsys, "evaluate", "--data=other")
    assert "other/3/1.png: cannot be read as an image" in fails(capsys, "--data=other", "--on_error=error")


@pytest.mark.slow
def test_skipped_images_are_in_the_table(capsys, digits_run, here):
    (here / "data" / "4" / "page.png").write_text("<html>")
    command = [f"--run_dir={digits_run.folder}", "--data=data"]
    assert "data/4/page.png: cannot be read as an image" in fails(capsys, *command)
    output = succeeds(capsys, "evaluate", *command, "--on_error=skip")
    assert "dataset:     data: 10 images, 1 skipped\n" in output
    assert "10 of 11" in succeeds(capsys, "results")


@pytest.mark.slow
def test_what_a_run_was_trained_on_is_not_counted_unawares(capsys, here):
    assert "dataset:     data, held out: 2 images\n" in succeeds(capsys, "evaluate")
    assert "--data=data is what runs/small was trained on; leave out --data" in fails(capsys, "--data=data")
    assert "dataset:     data: 10 images\n" in succeeds(capsys, "evaluate", "--data=data", "--split=all")
    Image.new("L", (9, 9)).save(here / "data" / "3" / "another.png")
    assert "'data' has changed since runs/small was trained" in fails(capsys)


@pytest.mark.slow
def test_a_run_of_an_older_version_is_evaluated_on_the_split_that_it_held_out(tmp_path, small_run):
    """`val` beside a split `test`, which is what is held out today."""
    for split, grey in (("train", 0), ("val", 1), ("test", 2)):
        for name in ("3", "4"):
            (tmp_path / "data" / split / name).mkdir(parents=True)
            Image.new("L", (9, 9), grey).save(tmp_path / "data" / split / name / "0.png")
    data = str(tmp_path / "data")
    splits = open_splits(data)
    for held_out in ("val", "test"):
        card = dataclasses.replace(ModelCard.load(small_run / "runs" / "small"), epoch=0)
        dataclasses.replace(card, held_out_fingerprint=splits[held_out].fingerprint).save(tmp_path)
        found = _examples(tmp_path, Recipe(data=data), None, None, "auto")
        assert found.fingerprint == splits[held_out].fingerprint


@pytest.mark.slow
def test_an_export_is_refused_what_its_run_was_trained_on(capsys, here):
    (here / "export" / "1").mkdir(parents=True)
    (here / "export" / "1" / "model.xml").touch()
    save_card(here / "export", protocol(3))
    card = ExportCard.load("export")
    assert "--data is missing: the images for export" in fails(capsys, "--model=export")
    dataclasses.replace(card, name="runs/small").save("export")
    assert "--data=data is what runs/small was trained on; leave out --data" in fails(
        capsys, "--model=export", "--data=data"
    )
    Image.new("L", (9, 9)).save(here / "data" / "3" / "another.png")
    assert "'data' has changed since runs/small was trained" in fails(capsys, "--model=export")


@pytest.mark.slow
def test_data_are_read_in_the_layout_of_the_run(capsys, here, monkeypatch):
    """Classes with names of splits: an error where nothing says what is meant."""
    for name in ("3", "4"):
        shutil.copytree(here / "data" / name, here / "mixed" / {"3": "train", "4": "4"}[name])
    recipe = here / "runs" / "small" / "recipe.json"
    card = ModelCard.load(recipe.parent)
    dataclasses.replace(card, class_names=("4", "train"), held_out_fingerprint="").save(recipe.parent)
    assert "--layout=classes" in fails(capsys, "--data=mixed")
    assert "dataset:     mixed: 10 images\n" in succeeds(capsys, "evaluate", "--data=mixed", "--layout=classes")
    Recipe.load(recipe).replaced({"data": "mixed", "layout": "classes"}).save(recipe)
    assert "dataset:     mixed, held out: 2 images\n" in succeeds(capsys, "evaluate")
    monkeypatch.chdir(here / "mixed")
    message = fails(capsys, f"--run_dir={recipe.parent}")
    assert "recipe.json has data='mixed', a path from the folder in which that run was started" in message
    assert message.endswith("start the command in that folder, or name the data with --data")


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["digits"], "unexpected argument 'digits'; name the model with --model, and the data with --data"),
        (["--run_dir=a", "--weights=b"], "--run_dir and --weights are both --model now; name one"),
        (
            ["--weights=fashion_mnist"],
            "--data is missing: the images for fashion_mnist; only a run has",
        ),
        (["--against=a", "--scores=a.npz"], "--scores is for one model; leave out --scores or --against"),
        (["--model=fashion_mnist", "--data=digits", "--against=b"], "--against='b' is not a file or folder in "),
        (["--split=val"], "--split is for --data"),
        (["--report=none/report.html"], "--report=none/report.html: its folder does not exist or cannot be written"),
        (["--results=none/results.csv"], "--results=none/results.csv: its folder does not exist or cannot be written"),
        (["--pooling=median"], "pooling='median' must be one of"),
        (["--fraction=0"], "fraction=0.0 must be above 0"),
        ([], "no trained model in runs/"),
        (["--weights=fashion_mnist", "--data=nowhere"], "data='nowhere' is not there"),
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
    assert "--report=report.html already exists" in fails(capsys, "--report=report.html")
    (tmp_path / "results.csv").write_text("model,top1\n")
    assert "results.csv: not the columns" in fails(capsys)
