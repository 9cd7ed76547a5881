"""HTML pages that a person can open: each is one file that holds its pictures and tables, and loads nothing."""

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
"""That of a picture which is to be looked at closely."""


@dataclass(frozen=True, eq=False)
class Picture:
    """An image, and what a model says of it.

    Attributes:
        name: of the image, its path or an identifier.
        image: uint8 array (height, width, channels) of 1 (grey), 3 (RGB) or 4 (RGBA) channels; `None` shows no picture.
        probabilities: float array (classes,).
        label: index of its true class; `None` where nobody knows it.
        overlays: pictures of it to show beside, uint8 arrays (height, width, 3), each with what it shows, as HTML.
    """

    name: str
    image: np.ndarray | None
    probabilities: np.ndarray
    label: int | None = None
    overlays: tuple[tuple[np.ndarray, str], ...] = ()


def write_page(path: str | os.PathLike, title: str, sections: Iterable[str]) -> None:
    """Writes a page, whole or not at all.

    Args:
        path: of the HTML file.
        title: text.
        sections: HTML.
    """
    title = escape(title)
    body = "\n".join((f"<h1>{title}</h1>", *sections))
    page = Template(TEMPLATE.read_text("utf-8")).substitute(title=title, body=body)
    with written_whole(Path(path)) as partial:
        # A file's name need not be text: bytes of it that are not are shown as such.
        partial.write_bytes(page.encode("utf-8", "backslashreplace"))


def name(text: str) -> str:
    """A name as HTML, whose letters from right to left do not turn what is around them."""
    return f"<bdi>{escape(text)}</bdi>"


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Of cells that are HTML already."""
    lines = ["".join(f"<th>{cell}</th>" for cell in header)]
    lines += ["".join(f"<td>{cell}</td>" for cell in row) for row in rows]
    return "<table>" + "\n".join(f"<tr>{line}</tr>" for line in lines if line) + "</table>"


def bar(share: float, kind: str) -> str:
    """A bar of a share, 0 to 1, in a colour of the page: `accent`, `right` or `wrong`."""
    return f'<span class="bar"><i class="{kind}" style="width:{100 * share:.1f}%"></i></span>'


def gallery(pictures: Iterable[Picture], names: Sequence[str], large: bool = False) -> str:
    """Pictures with their most probable classes.

    Args:
        pictures: in their order.
        names: of the classes, by label, as HTML.
        large: whether they are shown one below the other, as large as `LARGE`.

    Raises:
        ValueError: Pillow, for pictures, is not installed.
    """
    kind = "pictures large" if large else "pictures"
    cards = (_card(picture, names, LARGE if large else THUMBNAIL) for picture in pictures)
    return "\n".join((f'<div class="{kind}">', *cards, "</div>"))


def csv_link(file_name: str, text: str, rows: Iterable[Sequence[object]]) -> str:
    """A link that saves a table, which the page holds, as a CSV file.

    Args:
        file_name: that a browser proposes.
        text: of the link.
        rows: of the table, its header first.
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
    shown = "" if picture.image is None else _thumbnail(picture.image, longest)
    beside = "".join(
        f'<div class="picture">{_thumbnail(image, longest)}<div class="name">{text}</div></div>'
        for image, text in picture.overlays
    )
    return (
        f'<div class="card"><div class="picture">{shown}</div>{beside}<div class="text">{truth}<ol>{top}</ol>'
        f'<div class="name">{name(picture.name)}</div></div></div>'
    )


def _kind(predicted: int, label: int | None) -> str:
    if label is None:
        return "accent"
    return "right" if predicted == label else "wrong"


def _thumbnail(image: np.ndarray, longest: int) -> str:
    require_extra("data", "PIL")
    from PIL import Image

    picture = Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).convert("RGB")
    picture.thumbnail((longest, longest))
    # Scans of a few pixels are enlarged as they are.
    small = ' class="small"' if max(picture.size) <= longest // 2 else ""
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=85)
    return f'<img{small} alt="" src="data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}">'
