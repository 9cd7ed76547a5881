"""`polynet crops`: the picture, what is printed, and one line for each mistake."""

import numpy as np
import pytest
from PIL import Image, ImageColor
from sklearn.datasets import load_sample_image

from polynet_keras.data.protocol import Preprocessing
from polynet_keras.evaluation.contact_sheet import COLORS, MARGIN, THUMBNAIL
from tests.cli.outcomes import fails, succeeds
from tests.reference import views_of


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with photographs, which the command runs in."""
    photograph = load_sample_image("china.jpg")
    Image.fromarray(photograph).save(tmp_path / "china.png")
    Image.fromarray(np.rot90(photograph)).save(tmp_path / "portrait.png")
    Image.fromarray(photograph[:3, :5]).save(tmp_path / "tiny.png")
    Image.fromarray(photograph[:1].repeat(5, axis=1)).save(tmp_path / "line.png")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def sheet_of(path):
    return np.asarray(Image.open(path))


def pixels_of(sheet, color):
    return (sheet == ImageColor.getrgb(color)).all(axis=-1)


@pytest.mark.parametrize(
    ("image", "sizes"),
    [
        ("china.png", "128 x 86, 143 x 96, 160 x 107, 176 x 118"),
        ("portrait.png", "86 x 128, 96 x 143, 107 x 160, 118 x 176"),
        ("tiny.png", "143 x 86, 160 x 96, 178 x 107, 196 x 118"),
    ],
)
def test_144_crops(capsys, here, image, sizes):
    output = succeeds(capsys, "crops", image, "--image_size=75")
    assert output == f"crops.png: 144 crops of 75 x 75 px, cut from {image} resized to {sizes} px\n"
    sheet = sheet_of("crops.png")
    pixels = np.asarray(Image.open(image))
    expected = views_of(pixels, Preprocessing(75, 86), 144)[-1]
    assert_last_thumbnail(sheet, expected)
    # Above the grid, the boxes of each square.
    maps = sheet[: -MARGIN - 12 * THUMBNAIL - 100]
    assert all(pixels_of(maps, color).any() for color in COLORS)


def assert_last_thumbnail(sheet, view):
    """The grid ends at the margins."""
    found = sheet[-MARGIN - THUMBNAIL : -MARGIN, -MARGIN - THUMBNAIL : -MARGIN]
    whole = Image.fromarray(np.rint(view).astype("uint8"))
    np.testing.assert_array_equal(found, np.asarray(whole.resize((THUMBNAIL, THUMBNAIL))))
    assert (sheet[-MARGIN:] == 255).all()
    assert (sheet[:, -MARGIN:] == 255).all()


def test_the_box_is_drawn_where_the_crop_is(capsys, here):
    """Half of a 200 px square: its middle, of the width of the map."""
    succeeds(capsys, "crops", "china.png", "--crops=1", "--image_size=100", "--resize_size=200")
    drawn = pixels_of(sheet_of("crops.png")[:, :344], COLORS[0])
    rows, columns = np.nonzero(drawn.sum(axis=1) == 160)[0], np.nonzero(drawn.sum(axis=0) == 160)[0]
    assert list(rows - rows[0]) == [0, 159]
    assert list(columns) == [MARGIN + 80, MARGIN + 239]


def test_10_crops(capsys, here):
    output = succeeds(capsys, "crops", "china.png", "--crops=10", "--image_size=75", "--resize=shorter_side")
    assert output == "crops.png: 10 crops of 75 x 75 px, cut from china.png resized to 128 x 86 px\n"
    preprocessing = Preprocessing(75, 86, resize="shorter_side")
    assert_last_thumbnail(sheet_of("crops.png"), views_of(load_sample_image("china.jpg"), preprocessing, 10)[-1])


def test_an_image_that_is_less_than_a_pixel_wide_on_the_map(capsys, here):
    Image.new("RGB", (2, 650)).save("strip.png")
    for crops in (1, 10, 144):
        resize = [] if crops == 144 else ["--resize=shorter_side"]
        out = f"--output={crops}.png"
        assert "strip.png" in succeeds(
            capsys, "crops", "strip.png", f"--crops={crops}", "--image_size=75", out, *resize
        )


def test_1_crop(capsys, here):
    output = succeeds(capsys, "crops", "china.png", "--crops=1", "--output=one.png")
    assert output == "one.png: 1 crop of 331 x 331 px, cut from china.png resized to 378 x 378 px\n"
    assert Image.open("one.png").format == "PNG"


def test_mistakes(capsys, here):
    (here / "text.png").write_text("no image")
    before = {path.name: path.read_bytes() for path in here.iterdir()}
    for argv, message in (
        ([], "expected one IMAGE; got 0"),
        (["china.png", "tiny.png"], "expected one IMAGE; got 2"),
        (["none.png"], "none.png: no such file"),
        (["text.png"], "text.png: cannot be read as an image"),
        (["line.png"], "3200 x 1 px with the shorter side brought to 378 is too large"),
        (["china.png", "--crops=12"], "crops=12 must be one of 1, 10, 144"),
        (["china.png", "--crops=many"], "--crops=many"),
        (["china.png", "--image_size=0"], "image_size=0"),
        (["china.png", "--crops=10", "--resize_size=200"], "resize_size=200 must be at least image_size=331"),
        (["china.png", "--crops=1", "--resize=squash"], "resize='squash' must be one of square, shorter_side"),
        (["china.png", "--resize=square"], "--resize_size and --resize are for --crops=1 and --crops=10"),
        (["china.png", "--resize_size=400"], "--resize_size and --resize are for --crops=1 and --crops=10"),
        (["china.png", "--output=crops.jpg"], "--output=crops.jpg must end in .png"),
        (["china.png", "--output=tiny.png"], "--output=tiny.png already exists; name a new file"),
        (["china.png", "--output=none/crops.png"], "--output=none/crops.png: its folder does not exist"),
    ):
        assert message in fails(capsys, "crops", *argv)
    assert {path.name: path.read_bytes() for path in here.iterdir()} == before
