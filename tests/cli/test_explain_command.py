"""`polynet explain`: what it prints and writes, and what it says of mistakes."""

import re

import keras
import numpy as np
import pytest
from PIL import Image

from polynet_keras.cli.main import main
from polynet_keras.data.protocol import Preprocessing
from tests.deployment.exported import protocol, save_card
from tests.evaluation.test_predicting import NAMES, save_run
from tests.reference import few_layers


def explain(capsys, *argv, code=0):
    assert main(["explain", *map(str, argv)]) == code
    captured = capsys.readouterr()
    return captured.out.splitlines(), captured.err.splitlines()


@pytest.fixture(scope="module")
def small_run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("small")
    (folder / "runs" / "mine").mkdir(parents=True)
    keras.utils.set_random_seed(0)
    save_run(folder / "runs" / "mine", few_layers(classes=7), preprocessing=Preprocessing(12, 14))
    return folder


@pytest.fixture
def here(small_run, tmp_path, monkeypatch):
    """A folder with three images and the newest run `runs/mine`."""
    (tmp_path / "runs").symlink_to(small_run / "runs")
    (tmp_path / "photos").mkdir()
    rng = np.random.default_rng(0)
    for number in range(3):
        Image.fromarray(rng.integers(0, 256, (15, 13, 3), "uint8")).save(tmp_path / "photos" / f"{number}.png")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_page_of_several_maps(capsys, here):
    ways = ("--stage=stem_conv1_bn,stem", "--method=grad-cam,occlusion,grad-cam++")
    (model, *lines, page), _ = explain(capsys, "--output=page.html", *ways, "photos")
    assert (model, page) == ("model: runs/mine", "page:  page.html")
    assert [line.split()[0] for line in lines] == ["photos/0.png", "photos/1.png", "photos/2.png"]
    assert {line.split()[1] for line in lines} <= set(NAMES)
    html = (here / "page.html").read_text("utf-8")
    assert html.count("<img") == 3 * (1 + 2 * 2 + 1)
    assert html.count("Grad-CAM of <bdi>stem_conv1_bn</bdi>") == html.count("occlusion") == 3


def test_a_class_that_is_named(capsys, here):
    (_, *lines, _), _ = explain(capsys, "--output=page.html", "--stage=stem", "--class_name=c", "photos")
    assert [line.split()[1] for line in lines] == ["c"] * 3
    (_, *lines, _), _ = explain(capsys, "--output=other.html", "--stage=stem", "--class_name=2", "photos")
    assert [line.split()[1] for line in lines] == ["c"] * 3


def test_the_stage_that_is_taken_where_none_is_named(capsys, here):
    explain(capsys, "--output=page.html", "photos/0.png")
    assert re.search(r"Grad-CAM of <bdi>re_lu\w*</bdi>", (here / "page.html").read_text("utf-8"))


def test_a_bad_file_is_a_row_and_not_the_end(capsys, here):
    (here / "photos" / "1.png").write_text("no image")
    (_, *lines, page), err = explain(capsys, "--output=page.html", "--stage=stem", "photos", "none.jpg", code=1)
    assert page == "page:  page.html"
    assert err[-1] == "polynet: 2 of 4 images could not be read"
    errors = [line.split(maxsplit=1)[1] for line in lines[1::2]]
    assert errors[0].startswith("cannot be read as an image: its format is not one of")
    assert errors[1] == "no such file"
    html = (here / "page.html").read_text("utf-8")
    assert html.count("<img") == 2 * 2
    assert "Cannot be read: 2 images" in html


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--class_name=h"], "--class_name=h is not one of the model's 7 classes, 'a', 'b', 'c', 'd', 'e', 'f', 'g'"),
        (["--class_name=7"], "--class_name=7 is not one of the model's 7 classes"),
        (
            ["--stage=stage_c"],
            "--stage='stage_c' must be one of stem, or a layer of model '.*' that puts out a map, ",
        ),
        (["--model=export"], "--method=grad-cam needs gradients, but export is exported and has none; use --meth"),
        (["--method=occlusion", "--stage=stem"], "--stage is for the other methods: --method=occlusion hides parts"),
        (["--output=photos/0.png"], "--output=photos/0.png must end in .html"),
    ],
)
def test_mistakes(capsys, here, flags, message):
    (here / "export" / "1").mkdir(parents=True)
    (here / "export" / "1" / "model.xml").touch()
    save_card(here / "export", protocol())
    _, err = explain(capsys, "--output=page.html", *flags, "photos", code=1)
    assert re.search(message, err[-1])
    assert not (here / "page.html").exists()


def test_too_many_images_for_a_page(capsys, here, monkeypatch):
    monkeypatch.setattr("polynet_keras.cli.explain.MOST", 5)
    flags = ["--output=page.html", "--method=grad-cam,occlusion", "photos"]
    _, err = explain(capsys, *flags, code=1)
    assert err == ["polynet: 3 images with 2 maps each are too many for a page; name at most 2 images"]
    assert explain(capsys, *flags[:1], "photos")


def test_a_map_by_occlusion_has_no_stage(capsys, here):
    """Also beside Grad-CAM of the default stage, which the page names."""
    explain(capsys, "--output=page.html", "--method=grad-cam,occlusion", "photos")
    html = (here / "page.html").read_text("utf-8")
    assert html.count("Grad-CAM of <bdi>") == html.count("occlusion") == 3
    assert "occlusion of" not in html


def test_a_layer_that_is_called_twice(capsys, here):
    """It is the default here, though no name says which of its calls."""
    relu = keras.layers.ReLU(name="shared")
    image = keras.Input((12, 12, 3))
    x = relu(keras.layers.Conv2D(4, 3)(relu(keras.layers.Conv2D(4, 3)(image))))
    x = keras.layers.Dense(2, "softmax")(keras.layers.GlobalAveragePooling2D()(x))
    keras.Model(image, x).save(here / "twice.keras")
    (here / "names.txt").write_text("a\nb\n")
    flags = ["--model=twice.keras", "--classes=names.txt", "--preprocessing=unit", "--output=twice.html", "photos"]
    explain(capsys, *flags)
    assert "Grad-CAM of <bdi>shared</bdi>" in (here / "twice.html").read_text("utf-8")
