"""An HTML page of predictions: the pictures by predicted class."""

import os
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from html import escape

import numpy as np

from polynet_keras.basics.names import number_of, shown
from polynet_keras.data.image_files import read_image
from polynet_keras.evaluation.pages import THUMBNAIL, Picture, gallery, name, table, write_page
from polynet_keras.evaluation.predicting import Prediction

PICTURES = 1000
"""Most pictures on a page. With more images, all classes get equally many, the largest classes first."""
THREADS = 4
"""Threads that decode pictures; each may hold one of the largest images in memory."""


def write_prediction_page(path: str | os.PathLike, model: str, predictions: Sequence[Prediction]) -> None:
    """Writes a self-contained page with its pictures, completely or not at all.

    The pictures are grouped by predicted class, the least sure first, so that you see mistakes at a glance.

    Args:
        path: path of the HTML file.
        model: name of the model.
        predictions: the predictions to show.

    Raises:
        OSError: the page cannot be written.
    """
    of_class: dict[str, list[Prediction]] = defaultdict(list)
    unreadable = []
    for one in predictions:
        if one.error is None:
            of_class[one.classes[0][0]].append(one)
        else:
            unreadable.append((name(shown(one.image)), escape(one.error)))
    groups = sorted(of_class.items(), key=lambda group: -len(group[1]))
    most = max(1, PICTURES // max(1, len(groups)))

    def row(link: str, text: str, count: int) -> tuple[str, str, str]:
        return f'<a href="#{link}">{text}</a>', f"{count:,}", f"{100 * count / len(predictions):.1f} %"

    rows = [row(f"class-{i}", name(label), len(group)) for i, (label, group) in enumerate(groups)]
    if unreadable:
        rows.append(row("unreadable", "cannot be read", len(unreadable)))
    sections = [f"<p>The model: {name(shown(model))}</p>", table(("most probable class", "images", "share"), rows)]
    for i, (label, group) in enumerate(groups):
        group.sort(key=lambda one: one.classes[0][1])
        shown_ones = group[: most if i < PICTURES else 0]
        hidden = len(group) - len(shown_ones)
        surer = f" The model is surer of {number_of(hidden, 'more image')}, which this page does not show."
        sections += [
            f'<h2 id="class-{i}">{name(label)}: {number_of(len(group), "image")}</h2>',
            f"<p>The least sure first.{surer if hidden else ''}</p>",
            _gallery(shown_ones),
        ]
    if unreadable:
        count = number_of(len(unreadable), "image")
        sections += [f'<h2 id="unreadable">Cannot be read: {count}</h2>', table((), unreadable)]
    write_page(path, f"{number_of(len(predictions), 'image')} and their classes", sections)


def _gallery(predictions: Sequence[Prediction]) -> str:
    # Two classes may have one name, as ImageNet's cranes: their place in a prediction distinguishes them.
    labels: dict[tuple[str, int], int] = {}
    known: list[dict[int, float]] = []
    for one in predictions:
        names = [label for label, _ in one.classes]
        places = [labels.setdefault((label, names[:i].count(label)), len(labels)) for i, label in enumerate(names)]
        known.append(dict(zip(places, (probability for _, probability in one.classes), strict=True)))
    with ThreadPoolExecutor(THREADS) as pool:
        images = list(pool.map(_small, [one.image for one in predictions]))
    pictures = [
        Picture(shown(one.image), image, np.array([of_one.get(i, 0.0) for i in range(len(labels))]))
        for one, image, of_one in zip(predictions, images, known, strict=True)
    ]
    return gallery(pictures, [name(label) for label, _ in labels])


def _small(path: str) -> np.ndarray | None:
    """Returns the picture at its shown size; `None` if the file disappeared after its classification."""
    from PIL import Image

    try:
        picture = Image.fromarray(read_image(path, 3))
    except ValueError:
        return None
    picture.thumbnail((THUMBNAIL, THUMBNAIL))
    return np.asarray(picture)
