"""HTML pages for people: each is one file that contains its pictures and tables, and loads nothing."""

import base64
import csv
import io
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from string import Template
from urllib.parse import quote

import numpy as np

from polynet_keras.basics.extras import require_extra
from polynet_keras.basics.files import written_whole
from polynet_keras.evaluation.metrics import TOP

TEMPLATE = Path(__file__).with_name("report.html")
THUMBNAIL = 160
"""Longest side of a picture, in pixels."""
LARGE = 300
"""Longest side of a picture for close inspection, in pixels."""


@dataclass(frozen=True, eq=False)
class Picture:
    """An image and a model's prediction for it.

    Attributes:
        name: name of the image: its path or an identifier.
        image: uint8 array (height, width, channels) of 1 (grey), 3 (RGB) or 4 (RGBA) channels; `None` shows no picture.
        probabilities: float array (classes,).
        label: index of its true class; `None` if it is unknown.
        overlays: pictures to show beside it, uint8 arrays (height, width, 3), each with a caption as HTML.
    """

    name: str
    image: np.ndarray | None
    probabilities: np.ndarray
    label: int | None = None
    overlays: tuple[tuple[np.ndarray, str], ...] = ()


def write_page(path: str | os.PathLike, title: str, sections: Iterable[str]) -> None:
    """Writes a page, completely or not at all.

    Args:
        path: path of the HTML file.
        title: title as text.
        sections: sections as HTML.
    """
    title = escape(title)
    body = "\n".join((f"<h1>{title}</h1>", *sections))
    page = Template(TEMPLATE.read_text("utf-8")).substitute(title=title, body=body)
    with written_whole(Path(path)) as partial:
        # A file's name need not be text: bytes of it that are not are shown as such.
        partial.write_bytes(page.encode("utf-8", "backslashreplace"))


def name(text: str) -> str:
    """Returns a name as HTML; right-to-left letters in it do not reverse the surrounding text."""
    return f"<bdi>{escape(text)}</bdi>"


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Returns a table as HTML; its cells are HTML already."""
    lines = ["".join(f"<th>{cell}</th>" for cell in header)]
    lines += ["".join(f"<td>{cell}</td>" for cell in row) for row in rows]
    return "<table>" + "\n".join(f"<tr>{line}</tr>" for line in lines if line) + "</table>"


def bar(share: float, kind: str) -> str:
    """Returns a bar for a share, 0 to 1, in a colour of the page: `accent`, `right` or `wrong`."""
    return f'<span class="bar"><i class="{kind}" style="width:{100 * share:.1f}%"></i></span>'


def gallery(pictures: Iterable[Picture], names: Sequence[str], large: bool = False) -> str:
    """Returns pictures with their most probable classes as HTML.

    Args:
        pictures: pictures in order.
        names: names of the classes, by label, as HTML.
        large: whether the pictures are in one column, as large as `LARGE`.

    Raises:
        ValueError: Pillow, for pictures, is not installed.
    """
    kind = "pictures large" if large else "pictures"
    cards = (_card(picture, names, LARGE if large else THUMBNAIL) for picture in pictures)
    return "\n".join((f'<div class="{kind}">', *cards, "</div>"))


def csv_link(file_name: str, text: str, rows: Iterable[Sequence[object]]) -> str:
    """Returns a link that saves a table, which the page contains, as a CSV file.

    Args:
        file_name: file name that a browser proposes.
        text: text of the link.
        rows: rows of the table, with the header first.
    """
    written = io.StringIO()
    csv.writer(written, lineterminator="\n").writerows(rows)
    content = quote(written.getvalue().encode("utf-8", "backslashreplace"), safe=",")
    return f'<a download="{escape(file_name)}" href="data:text/csv;charset=utf-8,{content}">{escape(text)}</a>'


def _card(picture: Picture, names: Sequence[str], longest: int) -> str:
    best = np.argsort(-picture.probabilities, kind="stable")[:TOP]
    top = "".join(
        f"<li><span>{names[i]}</span>{bar(picture.probabilities[i], _kind(int(i), picture.label))}"
        f'<span class="number">{100 * picture.probabilities[i]:.1f} %</span></li>'
        for i in best
    )
    truth = ""
    if picture.label is not None:
        truth = f"true class <b>{names[picture.label]}</b>, probability {picture.probabilities[picture.label]:.2g}"
    shown = "" if picture.image is None else _thumbnail(picture.image, longest, picture.name)
    beside = "".join(
        f'<div class="picture">{_thumbnail(image, longest, f"{picture.name}, explained")}'
        f'<div class="name">{caption}</div></div>'
        for image, caption in picture.overlays
    )
    return (
        f'<div class="card"><div class="picture">{shown}</div>{beside}<div class="text">{truth}<ol>{top}</ol>'
        f'<div class="name">{name(picture.name)}</div></div></div>'
    )


def _kind(predicted: int, label: int | None) -> str:
    if label is None:
        return "accent"
    return "right" if predicted == label else "wrong"


def _thumbnail(image: np.ndarray, longest: int, text: str) -> str:
    require_extra("data", "PIL")
    from PIL import Image

    picture = Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).convert("RGB")
    picture.thumbnail((longest, longest))
    # Scans of a few pixels are enlarged as they are.
    small = ' class="small"' if max(picture.size) <= longest // 2 else ""
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=85)
    encoded = base64.b64encode(file.getvalue()).decode()
    return f'<img{small} alt="{escape(text)}" src="data:image/jpeg;base64,{encoded}">'
