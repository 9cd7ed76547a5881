"""An HTML page of explanations: each photograph beside its overlays."""

import os
from collections.abc import Sequence
from html import escape

from polynet_keras.basics.names import number_of, shown
from polynet_keras.evaluation.explaining import View
from polynet_keras.evaluation.explanation_methods import OCCLUSION
from polynet_keras.evaluation.explanations import Explanation
from polynet_keras.evaluation.loading import TrainedModel
from polynet_keras.evaluation.pages import Picture, gallery, name, table, write_page

TITLES = {"grad-cam": "Grad-CAM", "grad-cam++": "Grad-CAM++", OCCLUSION: "occlusion"}


def write_explanation_page(
    path: str | os.PathLike, model: TrainedModel, explanations: Sequence[Explanation], views: Sequence[View]
) -> None:
    """Writes a self-contained page with its pictures, completely or not at all.

    Args:
        path: path of the HTML file.
        model: the explained model.
        explanations: the explanations to show, in order.
        views: the views of each.

    Raises:
        OSError: the page cannot be written.
    """
    names = [name(shown(one)) for one in model.class_names]
    pictures, unreadable = [], []
    for one in explanations:
        if one.probabilities is None:
            unreadable.append((name(shown(one.image)), escape(one.error or "")))
            continue
        probability = f"{100 * one.probabilities[one.label]:.1f} %"
        overlays = [
            (overlay, f"{names[one.label]} ({probability}): {_title(view)}")
            for overlay, view in zip(one.overlays, views, strict=True)
        ]
        pictures.append(Picture(shown(one.image), one.picture, one.probabilities, None, tuple(overlays)))
    sections = [
        f"<p>The model: {name(shown(model.name))}</p>",
        "<p>Left: the part of the image that the model gets. Beside it, in colours: the support for the class. Red is "
        "the most, blue little, no colour none. Each map has its own scale.</p>",
        gallery(pictures, names, large=True),
    ]
    if unreadable:
        count = number_of(len(unreadable), "image")
        sections += [f'<h2 id="unreadable">Cannot be read: {count}</h2>', table((), unreadable)]
    write_page(path, f"{number_of(len(explanations), 'image')}, and what the model sees in them", sections)


def _title(view: View) -> str:
    return TITLES[view.method] if view.stage is None else f"{TITLES[view.method]} of {name(view.stage)}"
