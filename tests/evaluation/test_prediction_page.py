"""The page of predictions: its pictures by class, and nothing of a name in it that a browser would run."""

import re
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from polynet_keras.evaluation import prediction_page
from polynet_keras.evaluation.predicting import Prediction
from polynet_keras.evaluation.prediction_page import write_prediction_page

HOSTILE = "<script>alert('&')</script>"


class Page(HTMLParser):
    """Tags, and texts, of a page; every element that is opened is closed."""

    EMPTY = ("img", "meta")

    def __init__(self, html):
        super().__init__()
        self.open, self.tags, self.texts, self.links, self.ids = [], [], [], [], []
        self.feed(html)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.links += [value for name, value in attrs if name in ("href", "src")]
        self.ids += [value for name, value in attrs if name == "id"]
        if tag not in self.EMPTY:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)


@pytest.fixture
def files(tmp_path):
    """Three pictures; the first has a name that a browser would run."""
    paths = [tmp_path / name for name in (f"{HOSTILE.replace('/', '')}.png", "b\udce9.jpg", "c.png")]
    for path in paths:
        Image.fromarray(np.full((300, 200, 3), 99, "uint8")).save(path)
    return [str(path) for path in paths]


def page_of(tmp_path, predictions):
    write_prediction_page(tmp_path / "page.html", "runs/<b>", predictions)
    return Page((tmp_path / "page.html").read_text("utf-8"))


def test_pictures_stand_under_their_class(tmp_path, files):
    # Two classes are called `crane`, as in ImageNet.
    page = page_of(
        tmp_path,
        [
            Prediction(files[0], ((HOSTILE, 0.9), ("crane", 0.06), ("crane", 0.04))),
            Prediction(files[1], (("crane", 0.8), ("crane", 0.15), (HOSTILE, 0.05))),
            Prediction(files[2], ((HOSTILE, 0.5), ("crane", 0.3), ("crane", 0.2))),
            Prediction("gone.png", (("crane", 0.6), (HOSTILE, 0.3), ("crane", 0.1))),
            Prediction("text<i>.png", (), "cannot be read as an image: <b>"),
        ],
    )
    assert page.tags.count("img") == 3
    assert not {"script", "b"} & set(page.tags)
    text = " ".join(page.texts)
    for part in (
        *("5 images and their classes", "runs/<b>", f"{HOSTILE} : 2 images", "crane : 2 images"),
        *("text<i>.png", "cannot be read as an image: <b>", "Cannot be read: 1 image", "b\\xe9.jpg"),
        *("90.0 %", "80.0 %", "15.0 %", "40.0 %", "20.0 %"),
    ):
        assert part in text
    # The least sure first.
    assert text.index("c.png") < text.index("alert('&')<script>.png")
    assert (
        {link[1:] for link in page.links if link.startswith("#")}
        == set(page.ids)
        == {"class-0", "class-1", "unreadable"}
    )
    assert all(link.startswith(("#", "data:image/jpeg;base64,")) for link in page.links)


def test_of_many_images_as_many_of_each_class(tmp_path, files, monkeypatch):
    monkeypatch.setattr(prediction_page, "PICTURES", 4)
    predictions = [Prediction(files[2], (("cat", 0.5 + i / 100), ("dog", 0.5 - i / 100))) for i in range(5)]
    page = page_of(tmp_path, [*predictions, Prediction(files[1], (("dog", 1.0), ("cat", 0.0)))])
    assert page.tags.count("img") == 3
    text = " ".join(page.texts)
    assert "The model is surer of 3 more images, which this page does not show." in text
    assert "51.0 %" in text
    assert "52.0 %" not in text
    monkeypatch.setattr(prediction_page, "PICTURES", 1)  # fewer than classes
    (tmp_path / "page.html").unlink()
    page = page_of(tmp_path, [*predictions, Prediction(files[1], (("dog", 1.0), ("cat", 0.0)))])
    assert page.tags.count("img") == 1


def test_nothing_can_be_read(tmp_path):
    page = page_of(tmp_path, [Prediction("a.png", (), "no image")])
    assert re.search("1 image and their classes", " ".join(page.texts))
