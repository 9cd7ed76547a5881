"""A report of an evaluation that a person can open: one HTML file that holds its pictures and loads nothing."""

import base64
import dataclasses
import io
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from string import Template

import numpy as np

from polynet_keras.basics.extras import require_extra
from polynet_keras.basics.files import written_whole
from polynet_keras.evaluation.metrics import TOP, Counts
from polynet_keras.evaluation.reliability import reliability_diagram
from polynet_keras.evaluation.results import Result

TEMPLATE = Path(__file__).with_name("report.html")
THUMBNAIL = 160
"""Longest side of a picture, in pixels."""
SHOWN = 20
"""Classes at each end, and confused pairs."""


@dataclass(frozen=True, eq=False)
class Mistake:
    """An image that was predicted wrongly.

    Attributes:
        name: of the image, its path or an identifier.
        image: uint8 array (height, width, channels) of 1 (grey), 3 (RGB) or 4 (RGBA) channels; `None` shows no picture.
        label: index of its true class.
        probabilities: float array (classes,).
    """

    name: str
    image: np.ndarray | None
    label: int
    probabilities: np.ndarray


def worst_mistakes(probabilities: np.ndarray, labels: np.ndarray, count: int) -> np.ndarray:
    """Which images were predicted wrongly with the least probability for their true class, worst first.

    Args:
        probabilities: float array (images, classes).
        labels: integer array (images,).
        count: how many, at most.

    Returns:
        int64 array of the images' indices.
    """
    wrong = np.flatnonzero(probabilities.argmax(axis=1) != labels)
    return wrong[np.argsort(probabilities[wrong, labels[wrong]], kind="stable")[:count]]


def write_report(
    path: str | os.PathLike, result: Result, counts: Counts, mistakes: Sequence[Mistake], class_names: Sequence[str]
) -> None:
    """Writes the report, whole or not at all.

    Args:
        path: of the HTML file.
        result: the row of the table of results.
        counts: what it was made from.
        mistakes: to show, in this order; see `worst_mistakes`.
        class_names: by label.

    Raises:
        ValueError: result, counts and class names are not of one evaluation; or Pillow, for pictures, is not installed.
    """
    if (result.images, result.top1_hits, len(class_names)) != (counts.images, counts.top1_hits, counts.classes):
        raise ValueError(
            f"a result of {result.top1_hits} hits in {result.images} images and {len(class_names)} class names, and "
            f"counts of {counts.top1_hits} in {counts.images} and {counts.classes} are not of one evaluation"
        )
    names = [f"<bdi>{escape(name)}</bdi>" for name in class_names]
    title = escape(f"{result.model} on {result.dataset}")
    sections = (
        f"<h1>{title}</h1>",
        _headline(result, counts),
        "<h2>Calibration</h2>",
        "<p>Blue: the share of right images among those predicted with about this probability. Orange: how far it is "
        f"from their mean probability. Expected calibration error: {counts.ece:.4f}.</p>",
        reliability_diagram(counts),
        "<h2>Classes</h2>",
        _classes(counts, names),
        "<h2>Most frequent confusions</h2>",
        _confusions(counts, names),
        "<h2>Worst mistakes</h2>",
        f"<p>{len(mistakes):,} of {counts.images - counts.top1_hits:,}, with the five most probable classes.</p>",
        '<div class="mistakes">',
        *(_mistake(mistake, names) for mistake in mistakes),
        "</div>",
        "<h2>What was run</h2>",
        _table((), ((name, escape(str(value))) for name, value in dataclasses.asdict(result).items())),
    )
    page = Template(TEMPLATE.read_text("utf-8")).substitute(title=title, body="\n".join(sections))
    with written_whole(Path(path)) as partial:
        # A file's name need not be text: bytes of it that are not are shown as such.
        partial.write_bytes(page.encode("utf-8", "backslashreplace"))


def _headline(result: Result, counts: Counts) -> str:
    skipped = f"{result.skipped:,} could not be read and were skipped" if result.skipped else "none was skipped"
    tiles = (
        (f"{result.top1:.2f} %", f"top-1; 95 % interval {result.top1_low:.2f} to {result.top1_high:.2f}"),
        (f"{result.top5:.2f} %", f"top-{TOP}"),
        (f"{counts.loss:.4f}", "cross-entropy, nats"),
        (f"{counts.ece:.4f}", "expected calibration error"),
        (f"{counts.images:,}", f"images; {skipped}"),
        (f"{result.images_per_second:.2f}", f"images/s; crops of each: {result.crops}"),
    )
    texts = "\n".join(f'<div class="tile"><b>{value}</b><span>{meaning}</span></div>' for value, meaning in tiles)
    return f'<div class="tiles">\n{texts}\n</div>'


def _classes(counts: Counts, names: Sequence[str]) -> str:
    present = np.flatnonzero(counts.class_images)
    accuracy, images = counts.class_accuracy[present], counts.class_images[present]
    # Of equal accuracies, those of more images say more.
    worst, best = (present[np.lexsort((-images, key))] for key in (accuracy, -accuracy))
    absent = len(names) - len(present)
    note = f"<p>Without an image, and not shown: {absent:,} of {len(names):,} classes.</p>" if absent else ""
    if len(present) <= 2 * SHOWN:
        return note + _accuracies(counts, names, worst)
    return (
        f'{note}<div class="columns">'
        f"<div><h3>The {SHOWN} worst</h3>{_accuracies(counts, names, worst[:SHOWN])}</div>"
        f"<div><h3>The {SHOWN} best</h3>{_accuracies(counts, names, best[:SHOWN])}</div></div>"
    )


def _accuracies(counts: Counts, names: Sequence[str], classes: np.ndarray) -> str:
    rows = [
        (
            names[i],
            f"{100 * counts.class_accuracy[i]:.2f} %",
            _bar(counts.class_accuracy[i], "accent"),
            f"{counts.confusion[i, i]:,} of {counts.class_images[i]:,}",
        )
        for i in classes
    ]
    return _table(("class", "accuracy", "", "images right"), rows)


def _confusions(counts: Counts, names: Sequence[str]) -> str:
    rows = [
        (names[true], names[predicted], f"{images:,} of {counts.class_images[true]:,}")
        for true, predicted, images in counts.worst_pairs(SHOWN)
    ]
    return _table(("true class", "predicted class", "images of the true class"), rows)


def _mistake(mistake: Mistake, names: Sequence[str]) -> str:
    best = np.argsort(-mistake.probabilities, kind="stable")[:TOP]
    top = "".join(
        f"<li><span>{names[i]}</span>{_bar(mistake.probabilities[i], 'right' if i == mistake.label else 'wrong')}"
        f'<span class="number">{100 * mistake.probabilities[i]:.1f} %</span></li>'
        for i in best
    )
    picture = "" if mistake.image is None else _thumbnail(mistake.image)
    of_true = f"true class <b>{names[mistake.label]}</b>, probability {mistake.probabilities[mistake.label]:.2g}"
    return (
        f'<div class="mistake"><div class="picture">{picture}</div><div class="text">{of_true}<ol>{top}</ol>'
        f'<div class="name"><bdi>{escape(mistake.name)}</bdi></div></div></div>'
    )


def _thumbnail(image: np.ndarray) -> str:
    require_extra("data", "PIL")
    from PIL import Image

    picture = Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).convert("RGB")
    picture.thumbnail((THUMBNAIL, THUMBNAIL))
    # Scans of a few pixels are enlarged as they are.
    small = ' class="small"' if max(picture.size) <= THUMBNAIL // 2 else ""
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=85)
    return f'<img{small} alt="" src="data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}">'


def _bar(share: float, kind: str) -> str:
    return f'<span class="bar"><i class="{kind}" style="width:{100 * share:.1f}%"></i></span>'


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Of cells that are HTML already."""
    lines = ["".join(f"<th>{cell}</th>" for cell in header)]
    lines += ["".join(f"<td>{cell}</td>" for cell in row) for row in rows]
    return "<table>" + "\n".join(f"<tr>{line}</tr>" for line in lines if line) + "</table>"
