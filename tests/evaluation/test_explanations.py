"""Pictures of what a model sees: of files that can be read and others, in a report, and on a page without a script."""

import re

import keras
import numpy as np
import pytest
from PIL import Image

from polynet_keras.data.image_paths import image_paths
from polynet_keras.data.protocol import Preprocessing
from polynet_keras.evaluation import TrainedModel, explain, explaining, explanations
from polynet_keras.evaluation.explaining import View
from polynet_keras.evaluation.explanation_page import write_explanation_page
from polynet_keras.evaluation.explanations import Explanation, with_overlays
from polynet_keras.evaluation.loading import Runtime
from polynet_keras.evaluation.overlay import overlay, shown_part
from polynet_keras.evaluation.pages import Picture
from tests.data.arrays import random_images
from tests.evaluation.test_prediction_page import HOSTILE, Page
from tests.reference import few_layers

PREPROCESSING = Preprocessing(12, 14)
NAMES = ("cat", HOSTILE, "bird", "cow")
VIEWS = [View("stem", "grad-cam"), View(None, "occlusion")]


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(0)
    return TrainedModel("runs/<b>", few_layers(), PREPROCESSING, NAMES)


@pytest.fixture
def files(tmp_path):
    """Five photographs; the second one is none, and the last one is not there."""
    paths = [tmp_path / f"{number}.png" for number in range(5)]
    for path, pixels in zip(paths, random_images(5), strict=True):
        Image.fromarray(pixels).save(path)
    paths[1].write_text("no image")
    return [*map(str, paths), "gone.png"]


def test_files_come_in_their_order(model, files, monkeypatch):
    monkeypatch.setattr(explaining, "BATCH", 2)
    found = list(explanations.explanations(model, image_paths(files), None, VIEWS))
    assert [one.image for one in found] == files
    assert [one.error is None for one in found] == [True, False, True, True, True, False]
    assert found[1].error.startswith("cannot be read as an image: its format is not one of")
    assert found[5].error == "no such file"
    for one in found:
        if one.error is None:
            pixels = np.asarray(Image.open(one.image))
            images = PREPROCESSING(pixels)[np.newaxis]
            np.testing.assert_allclose(one.probabilities, model.probabilities(images)[0], atol=1e-5)
            assert one.label == one.probabilities.argmax()
            np.testing.assert_array_equal(one.picture, shown_part(pixels, PREPROCESSING, 300))
            maps = explain(model, images, stage="stem")
            np.testing.assert_allclose(one.overlays[0], overlay(one.picture, maps[0]), atol=2)


def test_nothing_can_be_read(model):
    (one,) = explanations.explanations(model, image_paths(["gone.png"]), 1, VIEWS)
    assert one.error == "no such file"


def test_what_of_an_image_is_shown():
    """The part that the protocol cuts out, in the image's own aspect ratio."""
    image = np.zeros((60, 120, 3), "uint8")
    image[15:45, 30:90] = 255
    half = Preprocessing(20, 40)
    assert shown_part(image, half, 100).shape == (50, 100, 3)
    assert shown_part(image, half, 100)[5:-5, 5:-5].min() == 255
    shorter = Preprocessing(20, 40, resize="shorter_side")
    assert shown_part(image, shorter, 90).shape == (90, 90, 3)
    assert shown_part(image[..., :1], half, 40).shape == (20, 40, 3)


def test_an_overlay_leaves_what_says_nothing_as_it_is():
    picture = np.full((40, 30, 3), 100, "uint8")
    map_ = np.zeros((8, 6))
    map_[:4] = 1
    found = overlay(picture, map_)
    np.testing.assert_array_equal(found[30:], picture[30:])
    red, _, blue = found[0, 0].tolist()
    assert red > blue


def mistakes(count):
    images = random_images(count)
    probabilities = np.full(4, 0.2)
    probabilities[1] = 0.4
    return tuple(Picture(f"{i}.png", image, probabilities, 0) for i, image in enumerate(images))


def test_the_worst_mistakes_of_a_report(model):
    pictures = (*mistakes(9), Picture("none", None, np.full(4, 0.25), 1))
    found = with_overlays(model, pictures)
    assert [one.name for one in found] == [one.name for one in pictures]
    assert [len(one.overlays) for one in found] == [1] * 8 + [0] * 2
    ((seen, text),) = found[0].overlays
    image = pictures[0].image
    map_ = explain(model, PREPROCESSING(image)[np.newaxis], 1)[0]
    np.testing.assert_allclose(seen, overlay(shown_part(image, PREPROCESSING, 160), map_), atol=2)
    assert "<script" not in text
    assert re.search(r"Grad-CAM of <bdi>re_lu\w*</bdi>$", text)


def test_a_report_without_a_gradient(model, caplog):
    pictures = mistakes(1)
    export = TrainedModel("it", Runtime(lambda x: x, "0"), PREPROCESSING, NAMES)
    assert with_overlays(export, pictures) == pictures
    flat = keras.Sequential([keras.Input((12, 12, 3)), keras.layers.Flatten(), keras.layers.Dense(4)])
    assert with_overlays(TrainedModel("it", flat, PREPROCESSING, NAMES), pictures) == pictures


def test_a_page(model, tmp_path):
    picture = np.zeros((8, 8, 3), "uint8")
    found = [
        Explanation("<i>.png", None, picture, (picture, picture), np.array([0.1, 0.75, 0.1, 0.05]), 1),
        Explanation("bad<i>.png", "cannot be read as an image: <b>"),
    ]
    write_explanation_page(tmp_path / "page.html", model, found, VIEWS)
    page = Page((tmp_path / "page.html").read_text("utf-8"))
    assert page.tags.count("img") == 3
    assert not {"script", "b"} & set(page.tags)
    text = " ".join(page.texts)
    for part in (
        *("2 images, and what the model sees in them", "runs/<b>", "<i>.png", "Cannot be read: 1 image"),
        *("bad<i>.png", "cannot be read as an image: <b>", "75.0 %", "occlusion", "Grad-CAM of", "stem"),
    ):
        assert part in text
    assert text.count(HOSTILE) == 3  # once for each map, and once in the list of classes
    assert all(link.startswith("data:image/jpeg;base64,") for link in page.links)
