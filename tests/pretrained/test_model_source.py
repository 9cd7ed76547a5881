"""What a model's name stands for, and what is said of a name that stands for nothing."""

import re

import pytest

from polynet_keras.pretrained.model_source import Kind, find_model, newest_run


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with one model of each kind."""
    monkeypatch.chdir(tmp_path)
    for path in ("runs/photos/model.keras", "runs/photos/model.json", "runs/photos/recipe.json", "digits/card.json"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).touch()
    for name in ("own.keras", "net.weights.h5", "net.pth", "imagenet"):
        (tmp_path / name).touch()
    (tmp_path / "begun").mkdir()
    (tmp_path / "begun" / "recipe.json").touch()
    (tmp_path / "empty").mkdir()
    return tmp_path


@pytest.mark.parametrize(
    ("name", "kind", "file"),
    [
        ("runs/photos", Kind.RUN, "runs/photos/model.keras"),
        ("runs/photos/", Kind.RUN, "runs/photos/model.keras"),
        ("runs/photos/model.keras", Kind.RUN, "runs/photos/model.keras"),
        ("own.keras", Kind.MODEL, "own.keras"),
        ("net.weights.h5", Kind.WEIGHTS, "net.weights.h5"),
        ("net.pth", Kind.WEIGHTS, "net.pth"),
        ("digits", Kind.EXPORT, "digits"),
        ("fashion_mnist", Kind.PUBLISHED, "fashion_mnist"),
        ("imagenet", Kind.PUBLISHED, "imagenet"),
        ("./imagenet", Kind.WEIGHTS, "imagenet"),
    ],
)
def test_kinds(here, name, kind, file):
    source = find_model(name)
    assert (source.kind, source.name, source.file) == (kind, name, file)


def test_paths_and_the_home_folder(here, monkeypatch):
    monkeypatch.setenv("HOME", str(here))
    assert find_model("~/own.keras").path == here / "own.keras"
    assert find_model(here / "runs" / "photos").kind is Kind.RUN


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "fashion_mnits",
            "{here}, and no published checkpoint (imagenet, .*, fashion_mnist); did you mean fashion_mnist?",
        ),
        ("photo", "did you mean runs/photos?"),
        ("own.kears", "did you mean own.keras?"),
        ("none/x", "model='none/x' is not a file or folder in {here}/none, and no published checkpoint"),
        ("", "model='' is not a file or folder in"),
        ("a\nb", r"model='a\nb' is not a file or folder in"),
        ("begun", "a folder without model.keras .* its run is not finished: `polynet train --run_dir` resumes it"),
        ("runs", "a folder without model.keras .* name one of the runs in it, such as runs/photos"),
        ("empty", "model.keras (of a run) and card.json (of an export); name the folder of a run that was finished"),
        (3, "model=3 must be a path, or the name of a published checkpoint"),
        (b"x", "model=b'x' must be a path"),
    ],
)
def test_what_is_not_found(here, name, message):
    pattern = ".*".join(re.escape(part) for part in message.format(here=here).split(".*"))
    with pytest.raises(ValueError, match=pattern):
        find_model(name)


def test_an_argument_has_its_own_name(here):
    with pytest.raises(ValueError, match="^weights='nowhere' is not a file or folder"):
        find_model("nowhere", "weights")


def test_the_newest_run(here):
    assert str(newest_run()) == "runs/photos"
