"""What a contact sheet is drawn of: texts, boxes and thumbnails, as they stand in `golden/contact_sheets.txt`.

After a change of the layout that you looked at (`polynet crops IMAGE`), `python -m tests.evaluation.test_contact_sheet`
writes that file anew.
"""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from polynet_keras.data.crops import crop_plan, views
from polynet_keras.data.preprocessing import Preprocessing
from polynet_keras.evaluation.contact_sheet import THUMBNAIL, contact_sheet

GOLDEN = Path(__file__).parents[1] / "golden" / "contact_sheets.txt"
SHEETS = ((1, 30, 45), (10, 30, 45), (144, 30, 45), (144, 45, 30))
"""Crops, height and width."""
PREPROCESSING = Preprocessing(24, 28)


def image(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), "uint8")


def drawn(crops: int, height: int, width: int) -> tuple[list[str], list[Image.Image]]:
    """A line for each thing that is drawn on the sheet of an image of that size, and the pictures among them."""
    lines, pictures = [], []

    def text(draw, place, written, color, font):
        lines.append(f"text at {place}, {font.size:g} px, {color}: {written}")

    def rectangle(draw, box, fill=None, outline=None, width=1):
        lines.append(f"rectangle {box}, filled {fill}, outline {outline}, {width} px wide")

    def paste(sheet, picture, place):
        lines.append(f"picture of {picture.size} at {place}")
        pictures.append(picture)

    plan = crop_plan(height, width, PREPROCESSING, crops)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ImageDraw.ImageDraw, "text", text)
        patch.setattr(ImageDraw.ImageDraw, "rectangle", rectangle)
        patch.setattr(Image.Image, "paste", paste)
        patch.setattr(ImageFont, "load_default", lambda size: ImageFont.TransposedFont(size))
        patch.setattr(ImageFont.TransposedFont, "size", property(lambda font: font.font), raising=False)
        sheet = contact_sheet(image(height, width), PREPROCESSING, plan)
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
    for found, view in zip(thumbnails, views(image(height, width), PREPROCESSING, crops), strict=True):
        expected = Image.fromarray(np.rint(view).astype("uint8")).resize((THUMBNAIL, THUMBNAIL))
        np.testing.assert_array_equal(np.asarray(found), np.asarray(expected))


def test_the_map_is_the_image_paled():
    """Six tenths of the image and four of white, where no box is drawn."""
    _, (found, _) = drawn(1, 320, 320)
    np.testing.assert_allclose(np.asarray(found), 0.6 * image(320, 320) + 0.4 * 255, rtol=0, atol=1)


if __name__ == "__main__":
    GOLDEN.write_text(all_drawn())
