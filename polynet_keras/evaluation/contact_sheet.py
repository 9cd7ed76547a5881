"""A picture of the crops that a network gets: their places in the image, and the views."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from polynet_keras.basics.extras import require_extra
from polynet_keras.basics.files import written_whole
from polynet_keras.basics.names import number_of
from polynet_keras.data.crops import Crop, crop_plan, each_view
from polynet_keras.data.image_files import read_image
from polynet_keras.data.protocol import Preprocessing

if TYPE_CHECKING:
    from PIL.Image import Image as PillowImage

PLACES = ("top left", "top right", "bottom left", "bottom right", "centre", "square")
"""Content of a row's views, in the order of `crop_plan`; the mirrored views follow."""

COLORS = ("#1f77b4", "#d95f02", "#2a9d4f")
"""Colours of the squares, in the order of `crop_plan`."""
INK, GREY = "#222222", "#666666"

# In pixels.
MAP = 320
THUMBNAIL = 96
GAP = 6
MARGIN = 24
LABELS = 130
LINE = 20
TITLE_SIZE, TEXT_SIZE = 18, 13


def save_contact_sheet(
    source: str | os.PathLike, output: str | os.PathLike, preprocessing: Preprocessing, crops: int = 144
) -> tuple[Crop, ...]:
    """Draws the crops of an image file.

    Args:
        source: an image file.
        output: the PNG file to write.
        preprocessing: the preprocessing, with 3 channels.
        crops: 1, 10 or 144.

    Returns:
        The crops in the picture.

    Raises:
        ValueError: the source is not an image, or cannot be cropped; see `crop_plan`.
        OSError: the output cannot be written.

    Examples:
        >>> from polynet_keras.data import Preprocessing
        >>> source, output = photos / "cat" / "1.jpg", folder / "crops.png"
        >>> crops = save_contact_sheet(source, output, Preprocessing(64, 72), crops=10)
        >>> len(crops), output.exists()
        (10, True)
    """
    require_extra("data", "PIL")
    image = read_image(source, 3)
    height, width = image.shape[:2]
    plan = crop_plan(height, width, preprocessing, crops)
    with written_whole(Path(output)) as partial:
        contact_sheet(image, preprocessing, plan).save(partial, format="PNG")
    return plan


def contact_sheet(image: np.ndarray, preprocessing: Preprocessing, plan: Sequence[Crop]) -> "PillowImage":
    """Draws a plan of `crop_plan`.

    The upper part shows the image once for each resized size, with its boxes. The lower part shows the views, a row
    for each square.

    Args:
        image: uint8 array (height, width, 3).
        preprocessing: the preprocessing of the plan.
        plan: the crops.

    Returns:
        A Pillow image, RGB.
    """
    from PIL import Image, ImageDraw, ImageFont

    places = {1: ("centre",), 10: PLACES[:5], 144: PLACES}[len(plan)]
    columns = min(len(plan), 2 * len(places))
    rows = [plan[start : start + columns] for start in range(0, len(plan), columns)]
    squares = 3 if len(plan) == 144 else 1
    sizes = [rows[start : start + squares] for start in range(0, len(rows), squares)]
    maps = [_map(image, size) for size in sizes]

    maps_top = MARGIN + 3 * LINE
    views_top = maps_top + max(picture.height for picture in maps) + 4 * LINE
    lefts = [MARGIN + LABELS + i * (THUMBNAIL + GAP) + i // len(places) * MARGIN for i in range(columns)]
    tops = [views_top + i * (THUMBNAIL + GAP) + i // squares * 2 * GAP for i in range(len(rows))]
    width = max(lefts[-1] + THUMBNAIL, len(maps) * (MAP + MARGIN)) + MARGIN
    sheet = Image.new("RGB", (width, tops[-1] + THUMBNAIL + MARGIN), "white")
    draw = ImageDraw.Draw(sheet)
    text = ImageFont.load_default(TEXT_SIZE)

    title = f"{_text(image.shape)} px; {number_of(len(plan), 'crop')} of {_text((preprocessing.image_size,) * 2)} px"
    if squares > 1:
        title += " (thick lines: the squares they are cut from)"
    draw.text((MARGIN, MARGIN), title, INK, ImageFont.load_default(TITLE_SIZE))
    for i, (picture, size) in enumerate(zip(maps, sizes, strict=True)):
        left = MARGIN + i * (MAP + MARGIN)
        draw.text((left, maps_top - LINE), f"resized to {_text(size[0][0].resized)}", GREY, text)
        sheet.paste(picture, (left, maps_top))
    for i, left in enumerate(lefts):
        if i % len(places) == 0:
            draw.text((left, views_top - 2 * LINE), "mirrored" if i else "as it is", INK, text)
        draw.text((left, views_top - LINE), places[i % len(places)], GREY, text)
    views = each_view(image, preprocessing, plan)
    for i, (top, row) in enumerate(zip(tops, rows, strict=True)):
        color, resized = COLORS[i % squares], row[0].resized
        names = ("top", "centre", "bottom") if resized[0] > resized[1] else ("left", "centre", "right")
        middle = top + THUMBNAIL // 2
        draw.text((MARGIN, middle - LINE), _text(resized), GREY, text)
        draw.text((MARGIN, middle), f"{names[i % squares]} square" if squares > 1 else "whole image", color, text)
        bar = MARGIN + LABELS - GAP
        draw.rectangle((bar - GAP, top, bar, top + THUMBNAIL - 1), color)
        for left in lefts:
            pixels = Image.fromarray(np.rint(next(views)).astype("uint8"))
            sheet.paste(pixels.resize((THUMBNAIL, THUMBNAIL)), (left, top))
    return sheet


def _map(image: np.ndarray, rows: Sequence[Sequence[Crop]]) -> "PillowImage":
    """Draws the boxes of one size on the faded image; squares larger than a crop have a thick line."""
    from PIL import Image, ImageDraw

    height, width = rows[0][0].resized
    scale = MAP / max(height, width)
    picture = Image.fromarray(image).resize((max(1, round(width * scale)), max(1, round(height * scale))))
    picture = Image.blend(picture, Image.new("RGB", picture.size, "white"), 0.4)
    draw = ImageDraw.Draw(picture)
    for row, color in zip(rows, COLORS, strict=False):
        for crop in row:
            top, left, bottom, right = (round(edge * scale) for edge in crop.box)
            whole = crop.box[2] - crop.box[0] == min(height, width)
            draw.rectangle(
                (left, top, max(left, right - 1), max(top, bottom - 1)), outline=color, width=3 if whole else 1
            )
    return picture


def _text(shape: Sequence[int]) -> str:
    """Formats a size with the width first, as usual for pictures; Pillow's own font lacks the multiplication sign."""
    return f"{shape[1]} x {shape[0]}"
