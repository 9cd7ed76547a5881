"""The HTML report, as a parser reads it: what it says, that it loads nothing, and that no name becomes markup."""

import base64
import csv
import dataclasses
import io
import re
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image
from scipy.special import softmax
from sklearn.metrics import classification_report

from polynet_keras.basics.names import number_of
from polynet_keras.evaluation.comparing import Comparison
from polynet_keras.evaluation.confusion import confusion_rows, confusion_svg
from polynet_keras.evaluation.evaluating import Evaluation
from polynet_keras.evaluation.judging import Judged, least_sure, worst_mistakes
from polynet_keras.evaluation.metrics import Counts
from polynet_keras.evaluation.pages import TEMPLATE, Picture, gallery
from polynet_keras.evaluation.paired import Paired
from polynet_keras.evaluation.reliability import HEIGHT, WIDTH, reliability_diagram
from polynet_keras.evaluation.report import write_report
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


HEADINGS = (
    *(
        "Comparison",
        "Calibration",
        "Classes",
        "Confusion matrix",
        "Most frequent confusions",
        "Worst mistakes",
        "Least sure",
    ),
    "What was run",
)


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


def evaluation_of(counts, names=None, mistakes=(), unsure=(), **fields):
    names = names or [f"class {i}" for i in range(counts.classes)]
    judged = Judged(counts, tuple(mistakes), tuple(unsure), np.arange(counts.images), np.zeros(counts.images, bool))
    return Evaluation(result_of(counts, **fields), judged, tuple(names), {})


def report(path, classes=10, images=400, image=None, name="image {}", **fields):
    """A page, and what it was made of."""
    probabilities, labels = evaluation(classes, images)
    counts = Counts.of(probabilities, labels)
    mistakes, unsure = (
        [Picture(name.format(i), image, probabilities[i], labels[i]) for i in chosen]
        for chosen in (worst_mistakes(probabilities, labels, 6), least_sure(probabilities, 4))
    )
    write_report(path, evaluation_of(counts, mistakes=mistakes, unsure=unsure, **fields))
    return Page(path), probabilities, labels, counts


def test_worst_mistakes():
    probabilities = np.array([[0.7, 0.3], [0.6, 0.4], [0.2, 0.8], [0.9, 0.1], [0.5, 0.5]])
    labels = np.array([1, 1, 1, 1, 1])
    assert worst_mistakes(probabilities, labels, 10).tolist() == [3, 0, 1, 4]
    assert worst_mistakes(probabilities, labels, 2).tolist() == [3, 0]
    assert worst_mistakes(probabilities, probabilities.argmax(1), 2).tolist() == []


def test_least_sure():
    """The two best classes of the third image are as probable; a class alone is as sure as it is probable."""
    probabilities = np.array([[0.5, 0.3, 0.2], [0.1, 0.1, 0.8], [0.4, 0.2, 0.4], [0.5, 0.3, 0.2]])
    assert least_sure(probabilities, 10).tolist() == [2, 0, 3, 1]
    assert least_sure(probabilities, 2).tolist() == [2, 0]
    assert least_sure(np.ones((3, 1)), 2).tolist() == [0, 1]


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
    assert report(tmp_path / "report.html", seconds=0.0)[0].texts.count("not measured") == 2
    assert "images; none was skipped" in report(tmp_path / "report.html")[0].texts
    assert "top-5" not in report(tmp_path / "report.html", classes=5)[0].texts  # all images would count


def test_pictures_have_their_names_as_texts(tmp_path):
    page, *_ = report(tmp_path / "report.html", image=np.zeros((8, 8, 3), "uint8"), name='"photo" <{}>')
    texts = [attributes["alt"] for attributes in page.all("img")]
    assert len(texts) == 10
    assert all(text.startswith('"photo" <') for text in texts)


def test_a_picture_is_a_value_of_its_own():
    """Its arrays have no truth value, so equality of two pictures is that of objects."""
    one, other = (Picture("name", None, np.array([0.2, 0.8]), 0) for _ in range(2))
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
    assert {tag for tag, _ in page.elements}.isdisjoint({"script", "link", "iframe", "object", "base", "form"})
    for tag, attributes in page.elements:
        assert not [name for name in attributes if name.startswith("on") or name in ("srcset", "background")]
        assert "href" not in attributes or (
            tag == "a" and attributes["href"].startswith("data:text/csv;charset=utf-8,")
        )
        assert ("href" in attributes) == ("download" in attributes)  # it is saved, and no page to go to
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
    mistakes = [Picture(HOSTILE, None, probabilities[wrong], labels[wrong])]
    fields = {field.name: HOSTILE for field in dataclasses.fields(Result) if field.type is str}
    write_report(tmp_path / "report.html", evaluation_of(counts, names, mistakes, **fields))
    page = Page(tmp_path / "report.html")
    assert not page.all("script")
    assert not page.all("img")
    assert f"{HOSTILE} on {HOSTILE}" in page.texts
    assert page.after("Worst mistakes")[-1] == HOSTILE
    assert page.after("What was run").count(HOSTILE) == len(fields)
    assert {HOSTILE, "b<i>", r"c\udcff"} < set(page.after("Classes"))


def rows_of(page, heading, columns):
    """The first table of a section: its header and its rows."""
    texts = page.after(heading)
    start = texts.index(columns[0])
    assert tuple(texts[start : start + len(columns)]) == columns
    cells = texts[start + len(columns) :]
    return [tuple(cells[i : i + len(columns)]) for i in range(0, len(cells) - len(columns) + 1, len(columns))]


COLUMNS = ("class", "precision", "recall", "F1", "images right")


def test_few_classes_are_all_shown_worst_first(tmp_path):
    page, probabilities, labels, counts = report(tmp_path / "report.html")
    said = classification_report(labels, probabilities.argmax(axis=1), output_dict=True)
    expected = sorted(
        (
            (
                *(f"class {i}", *(f"{said[str(i)][name]:.4f}" for name in ("precision", "recall", "f1-score"))),
                f"{counts.confusion[i, i]} of {said[str(i)]['support']:.0f}",
            )
            for i in range(10)
        ),
        key=lambda row: row[2],
    )
    assert rows_of(page, "Classes", COLUMNS)[:10] == expected
    means = ", ".join(
        f"{what} {said['macro avg'][name]:.4f}"
        for what, name in (("precision", "precision"), ("recall", "recall"), ("F1", "f1-score"))
    )
    assert page.after("Classes")[0].startswith(f"Means of classes: {means}.")


def test_many_classes_are_shown_at_both_ends_and_all_of_them_below(tmp_path):
    labels = np.repeat(np.arange(60), 4)  # class i has one image less than the others if i is odd
    labels = np.delete(labels, np.arange(4, 240, 8))
    predicted = labels.copy()
    predicted[labels < 25] = 63
    counts = Counts.of(np.eye(64)[predicted], labels)
    write_report(tmp_path / "report.html", evaluation_of(counts))
    texts = Page(tmp_path / "report.html").after("Classes")
    worst, best, everyone = (texts.index(text) for text in ("The 20 worst", "The 20 best", "All 64 classes"))
    assert texts[everyone - 1] == "Without an image: 4 of 64 classes."
    parts = texts[worst:best], texts[best:everyone], texts[everyone:]
    names = [[text for text in part if text.startswith("class ")] for part in parts]
    # Of equal recalls, first those of four images, then those of three.
    assert names[0] == [f"class {i}" for i in (*range(0, 25, 2), *range(1, 14, 2))]
    assert names[1] == [f"class {i}" for i in (*range(26, 60, 2), 25, 27, 29)]
    assert names[2] == [f"class {i}" for i in range(64)]
    # Nobody was taken for class 0; class 60 has no image and no prediction, class 63 the predictions of others.
    for i, numbers in (
        (0, ["-", "0.0000", "0.0000", "0 of 4"]),
        (60, ["-", "-", "-", "0 of 0"]),
        (63, ["0.0000", "-", "0.0000", "0 of 0"]),
    ):
        start = parts[2].index(f"class {i}") + 1
        assert parts[2][start : start + 4] == numbers


@pytest.mark.parametrize(("classes", "expected"), [(40, False), (41, True)])
def test_from_how_many_classes_on_there_are_two_ends(tmp_path, classes, expected):
    counts = Counts.of(np.eye(classes), np.arange(classes))
    write_report(tmp_path / "report.html", evaluation_of(counts))
    texts = Page(tmp_path / "report.html").after("Classes")
    assert ("The 20 worst" in texts) == ("The 20 best" in texts) == (f"All {classes} classes" in texts) == expected
    assert len([text for text in texts if text.startswith("class ")]) == (81 if expected else 40)


def saved_by(page, file_name):
    """The table that a link of the page saves."""
    (link,) = (link for link in page.all("a") if link["download"] == file_name)
    content = link["href"].removeprefix("data:text/csv;charset=utf-8,")
    return list(csv.reader(io.StringIO(unquote(content), newline="")))


def test_tables_that_are_saved(tmp_path):
    """Names come back as they were; of classes that are not defined, nothing is there, as pandas has it."""
    names = ["a,#&%?", 'b "c"\n', "naïve 汉", "absent"]
    labels = np.array([0, 0, 0, 1, 1])
    counts = Counts.of(np.eye(4)[[1, 1, 0, 2, 1]], labels)
    write_report(tmp_path / "report.html", evaluation_of(counts, names))
    page = Page(tmp_path / "report.html")
    assert saved_by(page, "confusion.csv") == [
        ["true class", *names[:3]],
        *([names[0], "1", "2", "0"], [names[1], "0", "1", "1"], [names[2], "0", "0", "0"]),
    ]
    header, *rows = saved_by(page, "classes.csv")
    assert header == ["class", "images", "predicted", "right", "precision", "recall", "f1"]
    assert rows == [
        [names[0], "3", "1", "1", "1.0", repr(1 / 3), "0.5"],
        [names[1], "2", "3", "1", repr(1 / 3), "0.5", "0.4"],
        [names[2], "0", "1", "0", "0.0", "", "0.0"],
        [names[3], "0", "0", "0", "", "", ""],
    ]


def fields_of(svg):
    """The fields of a confusion matrix that have a colour: for (row, column), the variable and the opacity."""
    found = {}
    for path in ElementTree.fromstring(svg).iter("path"):
        color, opacity = re.fullmatch(r"fill:var\((--\w+)\);fill-opacity:([\d.]+)", path.get("style")).groups()
        for x, y in re.findall(r"M(\d+) (\d+)h1v1h-1z", path.get("d")):
            assert (int(y), int(x)) not in found
            found[int(y), int(x)] = color, float(opacity)
    return found


@pytest.mark.parametrize("classes", [3, 25, 26, 60, 61, 300])
def test_confusion_matrix(classes):
    probabilities, labels = evaluation(classes, 500)
    counts = Counts.of(probabilities, labels)
    names = [f"<{i}>" for i in range(classes)]
    svg = confusion_svg(counts, names)
    occurring = np.flatnonzero(counts.class_images + counts.class_predictions)
    matrix = counts.confusion[np.ix_(occurring, occurring)]
    expected = {}
    for row, column in np.argwhere(matrix):
        share = matrix[row, column] / matrix[row].sum()
        expected[row, column] = "--accent" if row == column else "--wrong", np.ceil(10 * share) / 10
    assert fields_of(svg) == expected
    texts = [text.text for text in ElementTree.fromstring(svg).iter("text")]
    assert [text for text in texts if text.startswith("<")] == [n for n in names for _ in range(2) if classes <= 60]
    numbers = [int(text) for text in texts if not text.startswith("<")]
    assert numbers == ([matrix[row, column] for row, column in np.argwhere(matrix)] if classes <= 25 else [])


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_numbers_can_be_read_in_their_fields(scheme):
    """WCAG's contrast, at least 3, in all shades of both colours: of the field's colour over that of the page."""
    style = TEMPLATE.read_text("utf-8")
    light, dark = (dict(re.findall(r"--(\w+): #(\w{6})", block)) for block in re.findall(r":root {([^}]*)}", style))
    colors = {
        name: np.frombuffer(bytes.fromhex(code), "uint8") / 255
        for name, code in (light if scheme == "light" else dark).items()
    }

    def luminance(color):
        linear = np.where(color <= 0.04045, color / 12.92, ((color + 0.055) / 1.055) ** 2.4)
        return linear @ (0.2126, 0.7152, 0.0722)

    for right in range(11):  # each shade, of right ones and of mistakes
        predicted = np.arange(10) >= right
        svg = confusion_svg(Counts.of(np.eye(2)[predicted.astype(int)], np.zeros(10, int)), ["a", "b"])
        fields = fields_of(svg)
        inks = re.findall(r"fill:var\(--(\w+)\)\">\d", svg)
        assert len(inks) == len(fields) > 0
        for (_, (color, opacity)), ink in zip(sorted(fields.items()), inks, strict=True):
            field = opacity * colors[color.removeprefix("--")] + (1 - opacity) * colors["back"]
            low, high = sorted((luminance(field), luminance(colors[ink])))
            assert (high + 0.05) / (low + 0.05) >= 3


def test_classes_that_do_not_occur_have_no_row():
    counts = Counts.of(np.eye(1000)[[7, 9]], np.array([7, 7]))
    names = [f"class {i}" for i in range(1000)]
    assert list(confusion_rows(counts, names)) == [
        *(["true class", "class 7", "class 9"], ["class 7", 1, 1], ["class 9", 0, 0])
    ]
    assert fields_of(confusion_svg(counts, names)) == {(0, 0): ("--accent", 0.5), (0, 1): ("--wrong", 0.5)}


def test_each_bar_has_a_colour_of_the_page(tmp_path):
    page, *_ = report(tmp_path / "report.html", classes=5)
    styled = re.findall(r"\.bar \.(\w+) {", (tmp_path / "report.html").read_text())
    kinds = [bar["class"] for bar in page.all("i")]
    assert set(kinds) <= set(styled)
    assert kinds[:5] == ["accent"] * 5  # of the classes
    for mistake in np.reshape(kinds[5:], (10, 5)):  # with all five classes each, the true one among them
        assert sorted(mistake) == ["right", *["wrong"] * 4]


def test_a_comparison_is_told(tmp_path):
    """Nine images are right by B alone, one by A alone: McNemar's p-value is 0.021."""
    counts = Counts.of(*evaluation(3, 100))
    first, second = (evaluation_of(counts, model=model) for model in ("runs/a", "<b>"))
    write_report(tmp_path / "report.html", first, Comparison(first, second, Paired(80, 1, 9, 10)))
    said = Page(tmp_path / "report.html").after("Comparison")
    assert said[1:8] == ["model", "right", "top-1 %", "95 % interval", "loss", "images/s", "evaluated on"]
    assert said[8:12] == ["A: runs/a", "81 of 100", "81.00", "72.22 to 87.49"]
    assert said[15:19] == ["B: <b>", "89 of 100", "89.00", "81.37 to 93.75"]
    assert said[22:24] == ["right", "both 80, A alone 1, B alone 9, neither 10"]
    assert re.fullmatch(
        r"-8\.00 points of top-1 for A; 95 % interval -\S+ to -\S+; McNemar's exact p-value 0\.021", said[25]
    )
    assert said[26:] == ["answer", "B is better: <b> is right more often than runs/a"]
    write_report(tmp_path / "report.html", first)
    assert "Comparison" not in Page(tmp_path / "report.html").texts


def test_confusions(tmp_path):
    labels = np.array([0, 0, 0, 1, 1, 2])
    counts = Counts.of(np.eye(3)[[1, 1, 0, 2, 1, 2]], labels)
    write_report(tmp_path / "report.html", evaluation_of(counts, ["a", "b", "c"]))
    assert Page(tmp_path / "report.html").after("Most frequent confusions") == [
        *("true class", "predicted class", "images of the true class"),
        *("a", "b", "2 of 3", "b", "c", "1 of 2"),
    ]


def test_mistakes_with_their_best_classes(tmp_path):
    page, probabilities, labels, counts = report(tmp_path / "report.html")
    texts = page.after("Worst mistakes")
    assert texts[0].startswith(f"6 of {400 - counts.top1_hits}, ")
    for number, i in enumerate(worst_mistakes(probabilities, labels, 6)):
        found = texts[1 + 14 * number : 15 + 14 * number]
        assert found[:3] == ["true class", f"class {labels[i]}", f", probability {probabilities[i, labels[i]]:.2g}"]
        best = sorted(range(10), key=lambda j: -probabilities[i, j])[:5]
        expected = [text for j in best for text in (f"class {j}", f"{100 * probabilities[i, j]:.1f} %")]
        assert found[3:13] == expected
        assert found[13] == f"image {i}"
    widths = [bar["style"] for tag, bar in page.elements if tag == "i" and bar["class"] in ("wrong", "right")]
    assert len(widths) == 50
    first = worst_mistakes(probabilities, labels, 1)[0]
    assert widths[0] == f"width:{100 * probabilities[first].max():.1f}%"


def test_the_least_sure_images(tmp_path):
    page, probabilities, labels, _ = report(tmp_path / "report.html")
    texts = page.after("Least sure")
    assert texts[0].startswith("4 of 400 images, right and wrong ones")
    assert [text for text in texts if text.startswith("image ")] == [f"image {i}" for i in least_sure(probabilities, 4)]
    assert texts[2] == f"class {labels[least_sure(probabilities, 1)[0]]}"


def test_pictures_of_which_nobody_knows_the_class():
    html = gallery([Picture("image", None, np.array([0.2, 0.8]))], ["a", "b"])
    assert "true class" not in html
    assert re.findall(r'class="(accent|right|wrong)"', html) == ["accent"] * 2


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
    assert len(page.all("img")) == 10
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
        assert title.endswith(f" of {number_of(len(bins[number]), 'image')} right, {accuracy:.3f}")
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
