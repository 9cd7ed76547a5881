"""`polynet train` as a user meets it: what it says of the data, a try, and going on with a run."""

import re
import shutil
import socket

import keras
import numpy as np
import pytest
from PIL import Image

from polynet_keras.cli.main import main
from polynet_keras.pretrained.registry import published
from polynet_keras.pretrained.store import source_file
from tests.cli.outcomes import fails_in_the_end
from tests.reference import few_layers

SMALL = ["--data=photos", "--batch_size=4"]


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """The working folder, with a few photographs; runs train a few layers in place of a PolyNet."""
    rng = np.random.default_rng(0)
    for name, level in (("bright", 200), ("dark", 50)):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for i in range(5):
            pixels = rng.normal(level, 10, (9, 9, 3)).clip(0, 255).astype("uint8")
            Image.fromarray(pixels).save(tmp_path / "photos" / name / f"{i}.png")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("polynet_keras.training.runs.preparation.PolyNet", few_layers)
    monkeypatch.setattr("polynet_keras.training.runs.opening._told", set())
    return tmp_path


def fails(capsys, *argv):
    return fails_in_the_end(capsys, "train", *argv)[1]


@pytest.fixture
def unfinished(here, monkeypatch):
    """`run`, which was interrupted after the first of its two epochs."""

    def interrupt(self, epoch, logs=None):
        if epoch == 1:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(keras.callbacks.TensorBoard, "on_epoch_begin", interrupt)
        assert main(["train", *SMALL, "--epochs=2", "--seed=3", "--run_dir=run"]) == 130
    return here / "run"


@pytest.mark.slow
def test_a_run_says_which_epoch_is_its_best(here, capsys, caplog):
    assert main(["train", *SMALL, "--epochs=1", "--validation_share=0.25", "--run_dir=run"]) == 0
    output = capsys.readouterr().out
    assert "\nbest epoch:        1, with " in output
    assert output.split("best epoch: ")[1].splitlines()[0].endswith("% of 2 validation images")
    assert "validation: 25 % of each class to train on" in caplog.text


def test_a_dry_run_says_what_it_understood_and_leaves_nothing(here, capsys, caplog):
    assert main(["train", *SMALL, "--dry_run"]) == 0
    assert "photos: 2 classes, 8 images to train on\n" in caplog.text
    assert "image sizes: all 9 x 9 px" in caplog.text
    output = capsys.readouterr().out
    assert "first step:         loss 0." in output
    assert "one held-out batch: loss " in output
    assert re.search(
        r"the whole run:      about \d.* s for \d+ epochs; starting and saving come on top\n"
        r"each epoch:         2 steps of \S+ s, and \S+ s of validation\n",
        output,
    )
    assert [path.name for path in here.iterdir()] == ["photos"]


@pytest.mark.slow
def test_a_dry_run_reads_a_table_and_takes_a_run_folder_that_is_not_there(here, capsys):
    rows = [f"photos/{name}/{i}.png,{name},{'val' if i else 'train'}" for name in ("bright", "dark") for i in range(5)]
    (here / "photos.csv").write_text("\n".join(["path,label,split", *rows]))
    assert main(["train", "--data=photos.csv", "--dry_run", "--run_dir=run"]) == 0
    assert "first step: " in capsys.readouterr().out
    assert not (here / "run").exists()


def test_a_file_in_two_splits_is_an_error_that_was_asked_for(here, capsys):
    shutil.copy(here / "photos" / "dark" / "0.png", here / "photos" / "dark" / "copy.png")
    for i in range(1, 5):  # so that one of both is held out, whatever is drawn
        (here / "photos" / "dark" / f"{i}.png").unlink()
    assert "1 image is in two parts of the data" in fails(capsys, *SMALL, "--strict", "--run_dir=run")
    assert "1 image is in two parts of the data" in fails(capsys, *SMALL, "--strict", "--dry_run")
    assert [path.name for path in here.iterdir()] == ["photos"]


@pytest.mark.slow
def test_a_run_goes_on_with_its_own_recipe(unfinished, capsys, caplog):
    assert main(["train", "--run_dir=run"]) == 0
    assert "resuming from run/checkpoints/checkpoint-1: epoch 2, step 0" in caplog.text
    assert (unfinished / "model.json").is_file()
    assert "holds a finished run of this recipe; name a new folder, where --weights=run starts from" in fails(
        capsys, "--run_dir=run"
    )
    samples = sorted(path.name for path in (unfinished / "samples").iterdir())
    assert [name.split("-is-")[1] for name in samples] in (["bright.png", "dark.png"], ["dark.png", "bright.png"])


@pytest.mark.slow
def test_flags_must_agree_with_the_recipe_of_a_run(unfinished, capsys):
    expected = (
        "polynet: --run_dir='run' holds a run of another recipe (epochs=2, here 3; optimizer.name='rmsprop', here "
    )
    assert fails(capsys, "--run_dir=run", "--epochs=3", "--optimizer=sgd", "--seed=3").startswith(expected)
    assert "(layout='auto', here 'classes')" in fails(capsys, "--run_dir=run", "--layout=classes")
    assert "seed=3, here 0" in fails(capsys, "--run_dir=run", "--recipe=digits")  # which is a whole recipe
    assert main(["train", "--run_dir=run", *SMALL, "--epochs=2"]) == 0


@pytest.mark.slow
def test_data_of_a_run_that_are_not_found_from_here(unfinished, capsys, monkeypatch):
    (unfinished / "below").mkdir()
    monkeypatch.chdir(unfinished / "below")
    message = fails(capsys, "--run_dir=..")
    assert "../recipe.json has data='photos', a path from the folder in which that run was started" in message
    assert f"from here, '{unfinished}/below', it leads nowhere; start the command in that folder" in message


@pytest.mark.slow
def test_weights_that_cannot_be_fetched_leave_no_run_folder(here, capsys, monkeypatch):
    def no_network(*_, **__):
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

    def fetch(**_):
        source_file(published("imagenet"))

    monkeypatch.setattr("polynet_keras.training.runs.preparation.PolyNet", fetch)
    monkeypatch.setattr(socket, "getaddrinfo", no_network)
    monkeypatch.setattr("polynet_keras.pretrained.download.SEARCH_SECONDS", 0.1)
    monkeypatch.setenv("KERAS_HOME", str(here / "cache"))
    monkeypatch.delenv("POLYNET_WEIGHTS_DIR", raising=False)
    monkeypatch.delenv("POLYNET_WEIGHTS_MIRROR", raising=False)
    assert "name resolution" in fails(capsys, "--recipe=finetune", "--data=photos")
    assert not (here / "runs").exists()
    assert main(["train", "--recipe=finetune", "--data=photos", "--run_dir=run"]) == 1
    assert not (here / "run").exists()


def test_layouts_that_contradict_the_folders_are_told_before_a_run_folder_is_made(here, capsys):
    (here / "photos" / "Train").mkdir()
    message = fails(capsys, *SMALL)
    assert "has folders with names of splits ('Train') beside others ('bright', 'dark')" in message
    assert "--layout=classes" in message
    assert not (here / "runs").exists()
