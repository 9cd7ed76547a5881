"""`polynet predict`: what it prints and writes of few images and of many, and of files that are no images."""

import csv
import errno
import io
import sys

import numpy as np
import pytest
from PIL import Image

from polynet_keras.cli.main import main
from polynet_keras.evaluation import image_outputs, predicting
from tests.evaluation.test_predicting import NAMES, save_run, small_model


def predict(capsys, *argv, code=0):
    assert main(["predict", *map(str, argv)]) == code
    captured = capsys.readouterr()
    return captured.out.splitlines(), captured.err.splitlines()


@pytest.fixture(scope="module")
def small_run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("small")
    (folder / "runs" / "mine").mkdir(parents=True)
    save_run(folder / "runs" / "mine", small_model())
    return folder


@pytest.fixture
def here(piped, monkeypatch):
    """The same, and images come without tf.data, whose graph takes a second to make."""
    monkeypatch.setattr(image_outputs, "_piped", image_outputs._plain)


@pytest.fixture
def piped(small_run, tmp_path, monkeypatch):
    """A folder with three images and the newest run `runs/mine`."""
    (tmp_path / "runs").symlink_to(small_run / "runs")
    save_images(tmp_path / "photos", 3)
    monkeypatch.chdir(tmp_path)


def save_images(folder, count):
    folder.mkdir()
    rng = np.random.default_rng(0)
    for number in range(count):
        Image.fromarray(rng.integers(0, 256, (15, 13, 3), "uint8")).save(folder / f"{number:03d}.png")


def rows_of(path):
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_each_of_few_images_gets_a_line(capsys, here):
    (model, *lines), _ = predict(capsys, "--top=2", "photos/*.png")
    assert model == "model: runs/mine"
    assert [line.split()[0] for line in lines] == ["photos/000.png", "photos/001.png", "photos/002.png"]
    assert all(line.count("%") == 2 for line in lines)


def test_a_folder_becomes_a_table(capsys, here):
    (_, *lines, table), _ = predict(capsys, "--model=runs/mine", "--top=99", "--output=out.csv", "photos")
    assert table == "table: out.csv"
    assert len(lines) == 3
    rows = rows_of("out.csv")
    assert [row["path"] for row in rows] == ["photos/000.png", "photos/001.png", "photos/002.png"]
    for row, line in zip(rows, lines, strict=True):
        assert {row[f"class_{i}"] for i in range(1, 8)} == set(NAMES)  # not 99 of seven classes
        assert "class_8" not in row
        assert f" {row['class_1']} {float(row['probability_1']):7.2%}" in line
        assert row["error"] == ""


def test_a_page_to_look_at(capsys, here, tmp_path):
    (_, *lines, page), _ = predict(capsys, "--top=1", "--html=page.html", "photos")
    assert page == "page:  page.html"
    assert all(line.count("%") == 1 for line in lines)
    html = (tmp_path / "page.html").read_text("utf-8")
    assert html.count("<img") == 3
    assert html.count("<li>") == 3 * 5


def test_a_bad_file_is_a_row_and_not_the_end(capsys, piped):
    with open("photos/001.png", "w") as file:
        file.write("no image")
    (_, *lines, _), err = predict(capsys, "--output=out.csv", "photos", "none.jpg", code=1)
    assert err[-1] == "polynet: 2 of 4 images could not be read"
    assert not [line for line in err if "Traceback" in line or "tensorflow" in line.lower()]
    errors = [row["error"] for row in rows_of("out.csv")]
    assert errors[0] == errors[2] == ""
    assert errors[1].startswith("cannot be read as an image: its format is not one of JPEG")
    assert errors[3] == "no such file"
    assert [line.split(maxsplit=1)[1] for line in lines[1::2]] == errors[1::2]


def test_one_file_that_cannot_be_read(capsys, here):
    with open("text.png", "w") as file:
        file.write("no image")
    lines, err = predict(capsys, "text.png", code=1)
    assert lines == ["model: runs/mine"]
    assert err[-1].startswith("polynet: text.png: cannot be read as an image: its format is not one of")


@pytest.mark.slow
def test_of_many_images_the_first_and_a_summary(capsys, here, tmp_path):
    save_images(tmp_path / "many", 21)
    for number in (3, 20):
        (tmp_path / "many" / f"{number:03d}.png").write_text("no image")
    (_, *lines), err = predict(capsys, "--top=1", "many", code=1)
    assert [line.split()[0] for line in lines[:10]] == [f"many/{number:03d}.png" for number in range(10)]
    assert lines[10:12] == ["and 11 more; --output writes all of them to a table", ""]
    assert lines[12].split() == ["most", "probable", "class", "images", "share"]
    classes = [line.split() for line in lines[13:-3]]
    assert sum(int(count) for _, count, _ in classes) == 19
    assert {name for name, _, _ in classes} <= set(NAMES)
    counts = [int(count) for _, count, _ in classes]
    assert counts == sorted(counts, reverse=True)
    assert lines[-3].split() == ["(cannot", "be", "read)", "2", "9.5%"]
    assert [line.split()[0] for line in lines[-2:]] == ["many/003.png", "many/020.png"]
    assert err[-1] == "polynet: 2 of 21 images could not be read"
    (_, *lines, _), _ = predict(capsys, "--output=out.csv", "many", code=1)
    assert lines[10] == "and 11 more, in out.csv"


def test_a_list_on_standard_input(capsys, here, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"photos/002.png\0photos/000.png\0")))
    (_, *lines), _ = predict(capsys, "--top=1", "-")
    assert [line.split()[0] for line in lines] == ["photos/002.png", "photos/000.png"]
    monkeypatch.setattr(sys, "stdin", None)  # as `<&-` has it
    _, err = predict(capsys, "-", code=1)
    assert err == ["polynet: '-' is a list of files on standard input, which is closed; name the files"]


def test_storage_that_fails_is_no_bad_file(capsys, here, monkeypatch):
    """Its exit code says that another try may succeed."""

    def fails(path, *arguments):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr("polynet_keras.data.image_files.os.stat", fails)
    _, err = predict(capsys, "photos/000.png", code=70)
    assert "photos/000.png: cannot be read: Input/output error" in err[-1]


def test_crops_and_pooling(capsys, here, monkeypatch):
    asked = []

    def spied(trained, images, *arguments):
        asked.append(arguments)
        return iter(())

    monkeypatch.setattr(predicting, "predictions", spied)
    options = ("--crops=10", "--pooling=max", "--on=logits", "--batch_size=7", "--top=2")
    predict(capsys, *options, "photos")
    pooling = predicting.Pooling("max", on="logits")
    assert asked == [(2, 10, pooling, 7)]


def test_what_is_known_when_it_is_interrupted_is_kept(capsys, here, monkeypatch, caplog):
    predictions = predicting.predictions

    def interrupted(*arguments):
        found = predictions(*arguments)
        yield next(found)
        yield next(found)
        raise KeyboardInterrupt

    monkeypatch.setattr(predicting, "predictions", interrupted)
    (_, *lines), err = predict(capsys, "--output=out.csv", "photos", code=130)
    assert [line.split()[0] for line in lines] == ["photos/000.png", "photos/001.png"]
    assert "out.csv is incomplete: the first 2 rows are in out.partial.csv" in caplog.text
    assert err[-1] == "polynet: interrupted"
    assert [row["path"] for row in rows_of("out.partial.csv")] == ["photos/000.png", "photos/001.png"]


@pytest.mark.slow
def test_names_that_are_not_utf_8(capsys, here, tmp_path):
    (tmp_path / "photos" / "000.png").rename(tmp_path / "photos" / "caf\udce9\n.png")
    (_, *lines, _), _ = predict(capsys, "--output=out.csv", "photos")
    assert lines[2].startswith(r"photos/caf\xe9\n.png ")
    assert rows_of("out.csv")[2]["path"] == "photos/caf\\xe9\n.png"
