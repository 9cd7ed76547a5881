"""What a contact sheet is drawn of: texts, boxes and thumbnails, as they stand in `golden/contact_sheets.txt`.

After a change of the layout that you looked at (`polynet crops IMAGE`), `python -m tests.evaluation.test_contact_sheet`
writes that file anew.
"""

import ast
import re
import runpy
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from polynet_keras.data.crops import Crop, crop_plan
from polynet_keras.data.protocol import Preprocessing
from polynet_keras.evaluation.contact_sheet import THUMBNAIL, contact_sheet, save_contact_sheet
from tests.reference import views_of

GOLDEN = Path(__file__).parents[1] / "golden" / "contact_sheets.txt"
SHEETS = ((1, 30, 45), (10, 30, 45), (144, 30, 45), (144, 45, 30))
"""Crops, height and width."""
PREPROCESSING = Preprocessing(24, 28)


def image(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), "uint8")


def drawn(
    crops: int, height: int, width: int, preprocessing: Preprocessing = PREPROCESSING
) -> tuple[list[str], list[Image.Image]]:
    """A line for each thing that is drawn on the sheet of an image of that size, and the pictures among them."""
    lines, pictures = [], []

    def text(draw, place, written, color, font):
        lines.append(f"text at {place}, {font.size:g} px, {color}: {written}")

    def rectangle(draw, box, fill=None, outline=None, width=1):
        lines.append(f"rectangle {box}, filled {fill}, outline {outline}, {width} px wide")

    def paste(sheet, picture, place):
        lines.append(f"picture of {picture.size} at {place}")
        pictures.append(picture)

    plan = crop_plan(height, width, preprocessing, crops)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ImageDraw.ImageDraw, "text", text)
        patch.setattr(ImageDraw.ImageDraw, "rectangle", rectangle)
        patch.setattr(Image.Image, "paste", paste)
        patch.setattr(ImageFont, "load_default", lambda size: ImageFont.TransposedFont(size))
        patch.setattr(ImageFont.TransposedFont, "size", property(lambda font: font.font), raising=False)
        sheet = contact_sheet(image(height, width), preprocessing, plan)
    title = f"{crops} crops of {width} x {height}: a sheet of {sheet.size}, {sheet.mode}"
    return [title, *lines, ""], pictures


def all_drawn() -> str:
    return "\n".join(line for sheet in SHEETS for line in drawn(*sheet)[0])


def test_what_is_drawn():
    assert all_drawn().splitlines() == GOLDEN.read_text().splitlines()


@pytest.mark.parametrize(("crops", "height", "width"), SHEETS)
def test_thumbnails_are_the_views_in_their_order(crops, height, width):
    _, pictures = drawn(crops, height, width)
    maps, thumbnails = pictures[:-crops], pictures[-crops:]
    assert len(maps) == (4 if crops == 144 else 1)
    for found, view in zip(thumbnails, views_of(image(height, width), PREPROCESSING, crops), strict=True):
        expected = Image.fromarray(np.rint(view).astype("uint8")).resize((THUMBNAIL, THUMBNAIL))
        np.testing.assert_array_equal(np.asarray(found), np.asarray(expected))


def test_the_map_is_the_image_paled():
    """Six tenths of the image and four of white, where no box is drawn."""
    _, (found, _) = drawn(1, 320, 320)
    np.testing.assert_allclose(np.asarray(found), 0.6 * image(320, 320) + 0.4 * 255, rtol=0, atol=1)


@pytest.mark.parametrize(("height", "width", "size"), [(1, 1000, (320, 1)), (1000, 1, (1, 320))])
def test_a_map_is_a_pixel_wide_at_least(height, width, size):
    """Of an image of 28 x 28,000 px at a scale of 320/28,000, where a crop is a quarter of a pixel wide."""
    lines, pictures = drawn(10, height, width, replace(PREPROCESSING, resize="shorter_side"))
    assert pictures[0].size == size
    boxes = [ast.literal_eval(re.search(r"\(.*?\)", line)[0]) for line in lines if "outline #" in line]
    assert len(boxes) == 10
    for left, top, right, bottom in boxes:
        assert left <= right  # else Pillow refuses the box
        assert top <= bottom


def save(source: Path, target: Path) -> tuple[Crop, ...]:
    return save_contact_sheet(source, target, PREPROCESSING, 10)


def test_the_file_holds_the_sheet(tmp_path):
    """Of an image file of other channels too; a PNG whatever its name is."""
    grey = image(30, 45)[..., 0]
    Image.fromarray(grey).save(tmp_path / "grey.png")
    plan = save(tmp_path / "grey.png", tmp_path / "sheet")
    assert plan == crop_plan(30, 45, PREPROCESSING, 10)
    expected = contact_sheet(np.stack([grey] * 3, axis=-1), PREPROCESSING, plan)
    with Image.open(tmp_path / "sheet") as found:
        assert (found.format, found.mode) == ("PNG", "RGB")
        np.testing.assert_array_equal(np.asarray(found), np.asarray(expected))


def test_a_sheet_that_cannot_be_written_leaves_the_older_one(tmp_path, monkeypatch):
    Image.fromarray(image(30, 45)).save(tmp_path / "image.png")
    (tmp_path / "sheet.png").write_text("an older one")

    def fill_the_disk(picture, path, **_):
        Path(path).write_bytes(b"")
        raise OSError("no space left on device")

    monkeypatch.setattr(Image.Image, "save", fill_the_disk)
    with pytest.raises(OSError, match="no space left"):
        save(tmp_path / "image.png", tmp_path / "sheet.png")
    assert (tmp_path / "sheet.png").read_text() == "an older one"
    assert {path.name for path in tmp_path.iterdir()} == {"image.png", "sheet.png"}


def test_pillow_is_needed_to_draw_alone(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "PIL.Image", None)
        # Anew, and beside the module that others have.
        runpy.run_module(contact_sheet.__module__)
    monkeypatch.setattr("polynet_keras.basics.extras.find_spec", lambda module: None)
    with pytest.raises(ValueError, match="not installed: pillow"):
        save(tmp_path / "no image", tmp_path / "sheet.png")


def test_squares_of_a_square_image_go_from_left_to_right():
    lines, _ = drawn(144, 30, 30)
    labels = [line.rpartition(": ")[2] for line in lines if line.endswith(" square")]
    assert set(labels) >= {"left square", "centre square", "right square"}
    assert "top square" not in labels


if __name__ == "__main__":
    GOLDEN.write_text(all_drawn())
