"""The HTML report, as a parser reads it: what it says, that it loads nothing, and that no name becomes markup."""

import base64
import dataclasses
import io
import re
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image
from scipy.special import softmax

from polynet_keras.evaluation.metrics import Counts
from polynet_keras.evaluation.reliability import HEIGHT, WIDTH, reliability_diagram
from polynet_keras.evaluation.report import TEMPLATE, Mistake, worst_mistakes, write_report
from polynet_keras.evaluation.results import Result

VOID = {"meta", "img"}


class Page(HTMLParser):
    """Elements with their attributes, and the texts; every tag must be closed in its order."""

    def __init__(self, path):
        super().__init__()
        self.elements, self.texts, self.open = [], [], []
        self.feed(path.read_text("utf-8"))
        assert not self.open

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open[-1:] != ["style"] and data.strip():
            self.texts.append(data.strip())

    def all(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]

    def after(self, heading):
        """The texts of a section."""
        start = self.texts.index(heading) + 1
        ends = [i for i, text in enumerate(self.texts) if i > start and text in HEADINGS]
        return self.texts[start : min(ends, default=len(self.texts))]


HEADINGS = ("Calibration", "Classes", "Most frequent confusions", "Worst mistakes", "What was run")


def evaluation(classes, images, seed=0):
    random = np.random.default_rng(seed)
    labels = random.integers(0, classes, images)
    logits = random.normal(0, 2, (images, classes))
    logits[np.arange(images), labels] += 2
    return softmax(logits, axis=1), labels


def result_of(counts, **fields):
    texts = {field.name: f"the {field.name}" for field in dataclasses.fields(Result) if field.type is str}
    numbers = {"crops": 10, "skipped": 0, "seconds": 8.0, "parameters": 1234, "macs": 5678}
    counted = {name: getattr(counts, name) for name in ("images", "top1_hits", "top5_hits", "loss", "ece")}
    return Result(**(texts | numbers | counted | fields))


def report(path, classes=10, images=400, image=None, name="image {}", **fields):
    """A page, and what it was made of."""
    probabilities, labels = evaluation(classes, images)
    counts = Counts.of(probabilities, labels)
    worst = worst_mistakes(probabilities, labels, 6)
    mistakes = [Mistake(name.format(i), image, labels[i], probabilities[i]) for i in worst]
    write_report(path, result_of(counts, **fields), counts, mistakes, [f"class {i}" for i in range(classes)])
    return Page(path), probabilities, labels, counts


def test_worst_mistakes():
    probabilities = np.array([[0.7, 0.3], [0.6, 0.4], [0.2, 0.8], [0.9, 0.1], [0.5, 0.5]])
    labels = np.array([1, 1, 1, 1, 1])
    assert worst_mistakes(probabilities, labels, 10).tolist() == [3, 0, 1, 4]
    assert worst_mistakes(probabilities, labels, 2).tolist() == [3, 0]
    assert worst_mistakes(probabilities, probabilities.argmax(1), 2).tolist() == []


def test_summary(tmp_path):
    page, _, _, counts = report(tmp_path / "report.html", skipped=7)
    title = "the model on the dataset"
    assert page.texts[:2] == [title, title]
    low, high = counts.interval()
    start, end = page.texts.index("Calibration") - 12, page.texts.index("Calibration")
    assert page.texts[start:end] == [
        *(f"{100 * counts.top1:.2f} %", f"top-1; 95 % interval {100 * low:.2f} to {100 * high:.2f}"),
        *(f"{100 * counts.top5:.2f} %", "top-5"),
        *(f"{counts.loss:.4f}", "cross-entropy, nats"),
        *(f"{counts.ece:.4f}", "expected calibration error"),
        *("400", "images; 7 could not be read and were skipped"),
        *("50.00", "images/s; crops of each: 10"),
    ]
    run = page.after("What was run")
    assert dict(zip(run[::2], run[1::2], strict=True)) == {
        name: str(value) for name, value in dataclasses.asdict(result_of(counts, skipped=7)).items()
    }
    assert "images; none was skipped" in report(tmp_path / "report.html")[0].texts


def test_a_mistake_is_a_value_of_its_own():
    """Its arrays have no truth value, so equality of two mistakes is that of objects."""
    one, other = (Mistake("name", None, 0, np.array([0.2, 0.8])) for _ in range(2))
    assert one == one
    assert one != other
    with pytest.raises(dataclasses.FrozenInstanceError):
        one.label = 1


def test_a_write_that_fails_leaves_the_older_report(tmp_path, monkeypatch):
    report(tmp_path / "report.html")
    older = (tmp_path / "report.html").read_bytes()

    def fill_the_disk(path, data):
        path.open("wb").close()
        raise OSError("no space left on device")

    monkeypatch.setattr(Path, "write_bytes", fill_the_disk)
    with pytest.raises(OSError, match="no space left"):
        report(tmp_path / "report.html", images=300)
    assert (tmp_path / "report.html").read_bytes() == older
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]


def test_nothing_is_loaded(tmp_path):
    page, *_ = report(tmp_path / "report.html", image=np.zeros((8, 8, 3), "uint8"))
    assert {tag for tag, _ in page.elements}.isdisjoint({"script", "link", "iframe", "object", "base", "form", "a"})
    for tag, attributes in page.elements:
        assert not [name for name in attributes if name.startswith("on") or name in ("href", "srcset", "background")]
        assert "src" not in attributes or (tag == "img" and attributes["src"].startswith("data:image/jpeg;base64,"))
    assert "url(" not in (tmp_path / "report.html").read_text()
    (policy,) = (meta["content"] for meta in page.all("meta") if "http-equiv" in meta)
    assert policy == "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


HOSTILE = "</style><script>alert('\"1\"')</script><img src=x onerror=alert(1)>&amp;$body ${title}"


def test_names_are_text(tmp_path):
    probabilities, labels = evaluation(3, 60)
    counts = Counts.of(probabilities, labels)
    names = [HOSTILE, "b<i>", "c\udcff"]
    wrong = worst_mistakes(probabilities, labels, 1)[0]
    mistakes = [Mistake(HOSTILE, None, labels[wrong], probabilities[wrong])]
    fields = {field.name: HOSTILE for field in dataclasses.fields(Result) if field.type is str}
    write_report(tmp_path / "report.html", result_of(counts, **fields), counts, mistakes, names)
    page = Page(tmp_path / "report.html")
    assert not page.all("script")
    assert not page.all("img")
    assert f"{HOSTILE} on {HOSTILE}" in page.texts
    assert page.after("Worst mistakes")[-1] == HOSTILE
    assert page.after("What was run").count(HOSTILE) == len(fields)
    assert {HOSTILE, "b<i>", r"c\udcff"} < set(page.after("Classes"))


def test_few_classes_are_all_shown_worst_first(tmp_path):
    page, _, _, counts = report(tmp_path / "report.html")
    header, cells = page.after("Classes")[:3], page.after("Classes")[3:]
    assert header == ["class", "accuracy", "images right"]
    expected = [
        (
            100 * counts.confusion[i, i] / counts.class_images[i],
            f"class {i}",
            counts.confusion[i, i],
            counts.class_images[i],
        )
        for i in range(10)
    ]
    for found, (accuracy, name, right, images) in zip(np.reshape(cells, (10, 3)), sorted(expected), strict=True):
        assert tuple(found) == (name, f"{accuracy:.2f} %", f"{right} of {images}")


def test_many_classes_are_shown_at_both_ends_and_absent_ones_counted(tmp_path):
    labels = np.repeat(np.arange(60), 4)  # class i has one image less than the others if i is odd
    labels = np.delete(labels, np.arange(4, 240, 8))
    predicted = labels.copy()
    predicted[labels < 25] = 63
    counts = Counts.of(np.eye(64)[predicted], labels)
    write_report(tmp_path / "report.html", result_of(counts), counts, [], [f"class {i}" for i in range(64)])
    texts = Page(tmp_path / "report.html").after("Classes")
    assert texts[0] == "Without an image, and not shown: 4 of 64 classes."
    worst, best = texts.index("The 20 worst"), texts.index("The 20 best")
    names = [[text for text in part if text.startswith("class ")] for part in (texts[worst:best], texts[best:])]
    # Of equal accuracies, first those of four images, then those of three.
    assert names[0] == [f"class {i}" for i in (*range(0, 25, 2), *range(1, 14, 2))]
    assert names[1] == [f"class {i}" for i in (*range(26, 60, 2), 25, 27, 29)]


@pytest.mark.parametrize(("classes", "expected"), [(40, False), (41, True)])
def test_from_how_many_classes_on_there_are_two_ends(tmp_path, classes, expected):
    labels = np.arange(classes)
    counts = Counts.of(np.eye(classes), labels)
    write_report(tmp_path / "report.html", result_of(counts), counts, [], [f"class {i}" for i in labels])
    texts = Page(tmp_path / "report.html").after("Classes")
    assert ("The 20 worst" in texts) == ("The 20 best" in texts) == expected
    assert len([text for text in texts if text.startswith("class ")]) == 40


def test_each_bar_has_a_colour_of_the_page(tmp_path):
    page, *_ = report(tmp_path / "report.html", classes=5)
    styled = re.findall(r"\.bar \.(\w+) {", (tmp_path / "report.html").read_text())
    kinds = [bar["class"] for bar in page.all("i")]
    assert set(kinds) <= set(styled)
    assert kinds[:5] == ["accent"] * 5  # of the classes
    for mistake in np.reshape(kinds[5:], (6, 5)):  # with all five classes each, the true one among them
        assert sorted(mistake) == ["right", *["wrong"] * 4]


def test_confusions(tmp_path):
    labels = np.array([0, 0, 0, 1, 1, 2])
    counts = Counts.of(np.eye(3)[[1, 1, 0, 2, 1, 2]], labels)
    write_report(tmp_path / "report.html", result_of(counts), counts, [], ["a", "b", "c"])
    assert Page(tmp_path / "report.html").after("Most frequent confusions") == [
        *("true class", "predicted class", "images of the true class"),
        *("a", "b", "2 of 3", "b", "c", "1 of 2"),
    ]


def test_mistakes_with_their_best_classes(tmp_path):
    page, probabilities, labels, counts = report(tmp_path / "report.html")
    texts = page.after("Worst mistakes")
    assert texts[0] == f"6 of {400 - counts.top1_hits}, with the five most probable classes."
    for number, i in enumerate(worst_mistakes(probabilities, labels, 6)):
        found = texts[1 + 14 * number : 15 + 14 * number]
        assert found[:3] == ["true class", f"class {labels[i]}", f", probability {probabilities[i, labels[i]]:.2g}"]
        best = sorted(range(10), key=lambda j: -probabilities[i, j])[:5]
        expected = [text for j in best for text in (f"class {j}", f"{100 * probabilities[i, j]:.1f} %")]
        assert found[3:13] == expected
        assert found[13] == f"image {i}"
    widths = [bar["style"] for tag, bar in page.elements if tag == "i" and bar["class"] in ("wrong", "right")]
    assert len(widths) == 30
    first = worst_mistakes(probabilities, labels, 1)[0]
    assert widths[0] == f"width:{100 * probabilities[first].max():.1f}%"


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize(
    ("shape", "expected", "small"),
    [
        ((80, 28), (28, 80), True),
        ((28, 81), (81, 28), False),
        ((300, 600), (160, 80), False),
        ((3000, 1), (1, 160), False),
    ],
)
def test_pictures(tmp_path, channels, shape, expected, small):
    image = np.zeros((*shape, channels), "uint8")
    image[:, : max(1, shape[1] // 2)] = 255  # the left half
    page, *_ = report(tmp_path / "report.html", image=image)
    assert len(page.all("img")) == 6
    picture = page.all("img")[0]
    assert (picture.get("class") == "small") == small
    encoded = base64.b64decode(picture["src"].removeprefix("data:image/jpeg;base64,"), validate=True)
    with Image.open(io.BytesIO(encoded)) as thumbnail:
        assert thumbnail.format == "JPEG"
        assert thumbnail.size == expected
        pixels = np.asarray(thumbnail)
    assert pixels[:, 0].min() > 250
    if shape[1] > 1:
        assert pixels[:, -1].max() < 5


def test_pictures_need_pillow(tmp_path, monkeypatch):
    monkeypatch.setattr("polynet_keras.basics.extras.find_spec", lambda module: None)
    report(tmp_path / "report.html")
    with pytest.raises(ValueError, match="not installed: pillow"):
        report(tmp_path / "other.html", image=np.zeros((8, 8, 3), "uint8"))
    assert {path.name for path in tmp_path.iterdir()} == {"report.html"}


@pytest.mark.parametrize("seed", range(3))
def test_reliability_diagram(seed):
    """Read as XML: heights of the bars and gaps are those of a loop over the images."""
    probabilities, labels = evaluation(4, 300, seed)
    svg = ElementTree.fromstring(reliability_diagram(Counts.of(probabilities, labels)))
    bins = {}
    for row, label in zip(probabilities, labels, strict=True):
        bins.setdefault(int(np.ceil(row.max() * 15)) - 1, []).append((row.argmax() == label, row.max()))
    groups = svg.findall("g")
    assert len(groups) == len(bins)
    for group, number in zip(groups, sorted(bins), strict=True):
        accuracy, confidence = np.mean(bins[number], axis=0)
        title = group.find("title").text
        assert title.startswith(f"probability {number / 15:.2f} to {(number + 1) / 15:.2f}, mean {confidence:.3f}: ")
        assert title.endswith(f" of {len(bins[number])} images right, {accuracy:.3f}")
        bar, gap, count = (
            {name: float(rect.get(name)) for name in ("x", "y", "width", "height")} for rect in group.findall("rect")
        )
        assert bar["height"] == pytest.approx(HEIGHT * accuracy, abs=0.06)
        assert gap["height"] == pytest.approx(HEIGHT * abs(accuracy - confidence), abs=0.06)
        ends = sorted((bar["y"], bar["y"] - HEIGHT * (confidence - accuracy)))
        assert (gap["y"], gap["y"] + gap["height"]) == pytest.approx(ends, abs=0.2)
        assert bar["x"] == pytest.approx(gap["x"]) == pytest.approx(count["x"])
        assert count["height"] == pytest.approx(60 * len(bins[number]) / max(map(len, bins.values())), abs=0.06)
        assert bar["width"] < WIDTH / 15
    numbers = [float(value) for value in re.findall(r'(?:x|y)="([-\d.]+)"', ElementTree.tostring(svg, "unicode"))]
    assert min(numbers) >= 0
    assert max(numbers) <= 480


def test_reliability_diagram_by_hand():
    """The diagram is 410 px wide from 55 on, and 260 high from 10 on; the counts are the 60 from 290 on."""
    counts = Counts.of(np.array([[0.9, 0.1], [0.9, 0.1], [0.7, 0.3]]), np.array([0, 1, 0]))
    svg = ElementTree.fromstring(reliability_diagram(counts))
    assert svg.get("viewBox") == "0 0 480 390"
    scales = [
        *[("49", "274.0", "0"), ("55.0", "365", "0"), ("49", "209.0", "0.25"), ("157.5", "365", "0.25")],
        *[("49", "144.0", "0.5"), ("260.0", "365", "0.5"), ("49", "79.0", "0.75"), ("362.5", "365", "0.75")],
        *[("49", "14.0", "1"), ("465.0", "365", "1")],
    ]
    legends = [("49", "300", "2"), ("49", "350", "images"), ("260.0", "383", "probability of the predicted class")]
    texts = [(text.get("x"), text.get("y"), text.text) for text in svg.findall("text")]
    assert texts == [*scales, *legends, (None, None, "accuracy")]
    assert svg.findall("text")[-1].get("transform") == "translate(14 140.0) rotate(-90)"
    lines = [f"M55 {y}H465" for y in ("270.0", "205.0", "140.0", "75.0", "10.0")]
    assert [path.get("d") for path in svg.findall("path")] == [*lines, "M55 270L465 10", "M55 350H465"]
    # Of two images with 0.9 one is right, and the one with 0.7 is right.
    bars = [[tuple(rect.get(n) for n in ("x", "y", "width", "height")) for rect in g.findall("rect")] for g in svg]
    assert [group for group in bars if group] == [
        [("329.3", "10.0", "25.3", "260.0"), ("329.3", "10.0", "25.3", "78.0"), ("329.3", "320.0", "25.3", "30.0")],
        [("411.3", "140.0", "25.3", "130.0"), ("411.3", "36.0", "25.3", "104.0"), ("411.3", "290.0", "25.3", "60.0")],
    ]


def test_colours_of_the_reliability_diagram():
    """All are variables of the page: it has two values of each, for light and for dark."""
    svg = ElementTree.fromstring(reliability_diagram(Counts.of(np.array([[0.9, 0.1], [0.9, 0.1]]), np.array([0, 1]))))
    styles = [element.get("style") for element in svg.iter() if element.tag in ("path", "rect")]
    found = [re.fullmatch(r"(?:stroke|fill):var\((--\w+)\)(?:;[a-z-]+:[\d. ]+)*", style)[1] for style in styles]
    assert found == ["--line"] * 5 + ["--accent", "--wrong", "--faint"] + ["--faint", "--line"]
    for name in found:
        assert TEMPLATE.read_text().count(f"{name}: #") == 2


def test_a_reliability_diagram_of_no_image():
    counts = Counts.of(np.empty((0, 2)), np.empty(0, int))
    svg = ElementTree.fromstring(reliability_diagram(counts))
    assert not svg.findall("g")
    assert [text.text for text in svg.findall("text")][-4:-2] == ["1", "images"]


@pytest.mark.parametrize("change", ["images", "top1_hits", "names"])
def test_parts_of_other_evaluations_are_refused(tmp_path, change):
    probabilities, labels = evaluation(6, 50)
    counts = Counts.of(probabilities, labels)
    result = result_of(counts)
    if change != "names":
        result = dataclasses.replace(result, **{change: getattr(result, change) + (1 if change == "images" else -1)})
    with pytest.raises(
        ValueError, match=r"a result of \d+ hits in \d+ images and \d class names, and counts of .* not of one"
    ):
        write_report(tmp_path / "report.html", result, counts, [], ["class"] * (5 if change == "names" else 6))
    assert not list(tmp_path.iterdir())
