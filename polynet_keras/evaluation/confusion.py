"""The confusion matrix as a picture, in the colours of its page, and as a table."""

import math
from collections.abc import Iterator, Sequence
from html import escape

import numpy as np

from polynet_keras.evaluation.metrics import Counts

SHADES = 10
"""Number of shades of a cell, by its share of the images in its row."""
STRONG = 8
"""Shade from which a number is easier to read in the background colour than in the text colour (see the test)."""
NAMED = 60
"""Most classes whose names label the rows and columns; with more, the names would be too small to read."""
NUMBERED = 25
"""Most classes whose cells show their numbers."""
LETTERS = 24
"""Most letters of a class's name."""

FIELD, LABELS, LETTER = 22, 160, 6.5
"""Side of a cell, most width of the names, and width of a letter, in pixels; letters that are not ASCII may be twice as
wide. Cells are smaller if the classes have no names."""
SIDE = 600
"""Side of the matrix without names, in pixels."""


def occurring(counts: Counts) -> np.ndarray:
    """Returns the classes that have an image or were predicted, as an int64 array."""
    return np.flatnonzero(counts.class_images + counts.class_predictions)


def confusion_rows(counts: Counts, class_names: Sequence[str]) -> Iterator[list[object]]:
    """Returns table rows: a header, then each true class with its number of images predicted as each class."""
    classes = occurring(counts)
    yield ["true class", *(class_names[i] for i in classes)]
    for i in classes:
        yield [class_names[i], *counts.confusion[i, classes].tolist()]


def confusion_svg(counts: Counts, class_names: Sequence[str]) -> str:
    """Returns the `<svg>` element: true classes down, predicted classes across.

    It uses the CSS variables `--accent`, `--wrong`, `--line`, `--text`, `--back` and `--faint`. Its size grows with the
    cells that are not 0, not with the square of the classes.
    """
    classes = occurring(counts)
    matrix = counts.confusion[np.ix_(classes, classes)]
    named = len(classes) <= NAMED
    field = FIELD if named else SIDE / len(classes)
    names = [_short(class_names[i]) for i in classes]
    left = top = min(LABELS, max(map(_width, names), default=0)) if named else 0
    side = field * len(classes)
    marks = []
    if named:
        for place, text in enumerate(map(escape, names)):
            middle = field * (place + 0.5)
            marks.append(f'<text x="{left - 6}" y="{top + middle + 4:.1f}" text-anchor="end">{text}</text>')
            marks.append(f'<text transform="translate({left + middle + 4:.1f} {top - 6}) rotate(-90)">{text}</text>')
    if len(classes) <= NUMBERED:
        shades = _shades(matrix)
        for row, column in np.argwhere(matrix):
            x, y = left + field * (column + 0.5), top + field * (row + 0.5) + 4
            where = f'x="{x:.1f}" y="{y:.1f}" text-anchor="middle"'
            color = "--back" if shades[row, column] >= STRONG else "--text"
            marks.append(f'<text {where} style="fill:var({color})">{matrix[row, column]}</text>')
    width = left + side
    return "\n".join(
        (
            f'<svg class="matrix" viewBox="0 0 {width:g} {width:g}" role="img" aria-label="confusion matrix" '
            f'style="width:{width:g}px">',
            f'<rect x="{left}" y="{top}" width="{side:g}" height="{side:g}" style="fill:none;stroke:var(--line)"/>',
            f'<g transform="translate({left} {top}) scale({field:g})">',
            *_fields(matrix),
            "</g>",
            *marks,
            "</svg>",
        )
    )


def _fields(matrix: np.ndarray) -> Iterator[str]:
    """Yields one path per shade, each cell a square of side 1; correct and wrong cells have different colours."""
    rows, columns = np.nonzero(matrix)
    shades = _shades(matrix)[rows, columns]
    for color, chosen in (("--accent", rows == columns), ("--wrong", rows != columns)):
        for shade in np.unique(shades[chosen]):
            part = chosen & (shades == shade)
            path = "".join(f"M{x} {y}h1v1h-1z" for x, y in zip(columns[part], rows[part], strict=True))
            yield f'<path d="{path}" style="fill:var({color});fill-opacity:{shade / SHADES:g}"/>'


def _shades(matrix: np.ndarray) -> np.ndarray:
    """Returns an int64 array of shades, 0 for no image; even the rarest mistake has a colour."""
    return np.ceil(matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1) * SHADES).astype(int)


def _width(text: str) -> int:
    """Returns the width of a name with its distance to the cells, in pixels."""
    return 12 + math.ceil(sum(LETTER if letter.isascii() else 2 * LETTER for letter in text))


def _short(text: str) -> str:
    return text if len(text) <= LETTERS else f"{text[: LETTERS - 1]}…"
