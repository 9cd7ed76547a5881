"""A report of an evaluation for people: one HTML file that contains its pictures and loads nothing."""

import dataclasses
import math
import os
from collections.abc import Iterator, Sequence
from html import escape
from typing import TYPE_CHECKING

import numpy as np

from polynet_keras.basics.names import number_of
from polynet_keras.evaluation.comparison_text import HEADER, comparison_facts, comparison_rows
from polynet_keras.evaluation.confusion import confusion_rows, confusion_svg
from polynet_keras.evaluation.metrics import TOP, Counts
from polynet_keras.evaluation.pages import Picture, bar, csv_link, gallery, name, table, write_page
from polynet_keras.evaluation.reliability import reliability_diagram

if TYPE_CHECKING:
    from polynet_keras.evaluation.comparing import Comparison
    from polynet_keras.evaluation.evaluating import Evaluation
    from polynet_keras.evaluation.loading import TrainedModel

SHOWN = 20
"""Number of classes at each end, and of confused pairs."""


def write_report(
    path: str | os.PathLike,
    evaluation: "Evaluation",
    comparison: "Comparison | None" = None,
    model: "TrainedModel | None" = None,
) -> None:
    """Writes the report, completely or not at all.

    Args:
        path: path of the HTML file.
        evaluation: result of `evaluate`.
        comparison: its comparison with another model.
        model: the evaluated model; a Keras model adds explanations of the worst mistakes.

    Raises:
        ValueError: Pillow or matplotlib, for pictures, is not installed.
    """
    result, counts, found = evaluation.result, evaluation.counts, evaluation.judged
    mistakes, seen = found.mistakes, ""
    if model is not None:
        from polynet_keras.evaluation.explanations import with_overlays

        mistakes = with_overlays(model, mistakes)
        seen = _seen(mistakes)
    names = [name(text) for text in evaluation.class_names]
    facts = dataclasses.asdict(result) | ({} if result.seconds else {"seconds": result.speed})
    sections = (
        _headline(evaluation),
        *(_compared(comparison) if comparison is not None else ()),
        "<h2>Calibration</h2>",
        "<p>A blue bar is as high as the share of right images among those predicted with about this probability. "
        "The orange part is the gap between this share and their mean probability. Expected calibration error: "
        f"{counts.ece:.4f}.</p>",
        reliability_diagram(counts),
        "<h2>Classes</h2>",
        _classes(counts, names, evaluation.class_names),
        "<h2>Confusion matrix</h2>",
        _confusion(counts, evaluation.class_names),
        "<h2>Most frequent confusions</h2>",
        _confusions(counts, names),
        "<h2>Worst mistakes</h2>",
        f"<p>{len(found.mistakes):,} of {counts.images - counts.top1_hits:,}, those with the least probability for "
        f"their true class, with the five most probable classes.{seen}</p>",
        gallery(mistakes, names),
        "<h2>Least sure</h2>",
        f"<p>{len(found.unsure):,} of {number_of(counts.images, 'image')}, right and wrong ones: those whose two "
        "most probable classes are nearest to each other.</p>",
        gallery(found.unsure, names),
        "<h2>What was run</h2>",
        table((), ((field, escape(str(value))) for field, value in facts.items())),
    )
    write_page(path, f"{result.model} on {result.dataset}", sections)


def _seen(mistakes: Sequence[Picture]) -> str:
    count = sum(bool(picture.overlays) for picture in mistakes)
    if not count:
        return ""
    return (
        f" Beside the first {'one' if count == 1 else count}, in colours: the support for the predicted class, from "
        "the middle of the image; red is the most, no colour none."
    )


def _headline(evaluation: "Evaluation") -> str:
    result, counts = evaluation.result, evaluation.counts
    skipped = f"{result.skipped:,} could not be read and were skipped" if result.skipped else "none was skipped"
    tiles = (
        (f"{result.top1:.2f} %", f"top-1; 95 % interval {result.top1_low:.2f} to {result.top1_high:.2f}"),
        *(((f"{result.top5:.2f} %", f"top-{TOP}"),) if len(evaluation.class_names) > TOP else ()),
        (f"{counts.loss:.4f}", "cross-entropy, nats"),
        (f"{counts.ece:.4f}", "expected calibration error"),
        (f"{counts.images:,}", f"images; {skipped}"),
        (result.speed, f"images/s; crops of each: {result.crops}"),
    )
    texts = "\n".join(f'<div class="tile"><b>{value}</b><span>{meaning}</span></div>' for value, meaning in tiles)
    return f'<div class="tiles">\n{texts}\n</div>'


def _compared(comparison: "Comparison") -> Iterator[str]:
    yield "<h2>Comparison</h2>"
    yield "<p>For the images that both models were evaluated on. All else on this page is about A only.</p>"
    yield table(HEADER, ([name(cell) for cell in row] for row in comparison_rows(comparison)))
    yield "<p></p>"
    yield table((), ((what, name(fact)) for what, fact in comparison_facts(comparison).items()))


def _classes(counts: Counts, names: Sequence[str], plain: Sequence[str]) -> str:
    present = np.flatnonzero(counts.class_images)
    recall, images = counts.class_accuracy[present], counts.class_images[present]
    # Among equal recalls, those of more images say more.
    worst, best = (present[np.lexsort((-images, key))] for key in (recall, -recall))
    means = [np.nanmean(of_class) for of_class in (counts.class_precision, counts.class_accuracy, counts.class_f1)]
    parts = [
        "<p>Means of classes: precision {:.4f}, recall {:.4f}, F1 {:.4f}. A dash is where no image is of the class, "
        "or none was taken for it; the means leave it out.</p>".format(*means)
    ]
    if len(present) <= 2 * SHOWN:
        parts.append(_class_table(counts, names, worst))
    else:
        parts.append(
            f'<div class="columns"><div><h3>The {SHOWN} worst</h3>{_class_table(counts, names, worst[:SHOWN])}</div>'
            f"<div><h3>The {SHOWN} best</h3>{_class_table(counts, names, best[:SHOWN])}</div></div>"
        )
    if len(present) < len(names):
        parts.append(f"<p>Without an image: {len(names) - len(present):,} of {len(names):,} classes.</p>")
    if len(present) < len(names) or len(present) > 2 * SHOWN:
        everyone = _class_table(counts, names, np.arange(len(names)))
        parts.append(f"<details><summary>All {len(names):,} classes</summary>{everyone}</details>")
    rows = zip(
        plain,
        counts.class_images.tolist(),
        counts.class_predictions.tolist(),
        counts.confusion.diagonal().tolist(),
        *map(_blank, (counts.class_precision, counts.class_accuracy, counts.class_f1)),
        strict=True,
    )
    header = ("class", "images", "predicted", "right", "precision", "recall", "f1")
    parts.append(f"<p>{csv_link('classes.csv', 'Save as CSV', [header, *rows])}</p>")
    return "\n".join(parts)


def _class_table(counts: Counts, names: Sequence[str], classes: np.ndarray) -> str:
    rows = [
        (
            names[i],
            _number(counts.class_precision[i]),
            _number(counts.class_accuracy[i]),
            bar(np.nan_to_num(counts.class_accuracy[i]), "accent"),
            _number(counts.class_f1[i]),
            f"{counts.confusion[i, i]:,} of {counts.class_images[i]:,}",
        )
        for i in classes
    ]
    return table(("class", "precision", "recall", "", "F1", "images right"), rows)


def _number(share: float) -> str:
    return "-" if math.isnan(share) else f"{share:.4f}"


def _blank(shares: np.ndarray) -> list[object]:
    """Formats as pandas does: an undefined number is an empty cell."""
    return ["" if math.isnan(share) else share for share in shares.tolist()]


def _confusion(counts: Counts, class_names: Sequence[str]) -> str:
    rows = confusion_rows(counts, class_names)
    return (
        "<p>Down: true classes. Across: predicted classes. The stronger a field's colour, the more of the true "
        "class's images it holds; blue are the right ones. Classes without an image and without a prediction are left "
        "out.</p>\n"
        f"{confusion_svg(counts, class_names)}\n<p>{csv_link('confusion.csv', 'Save as CSV', rows)}</p>"
    )


def _confusions(counts: Counts, names: Sequence[str]) -> str:
    rows = [
        (names[true], names[predicted], f"{images:,} of {counts.class_images[true]:,}")
        for true, predicted, images in counts.worst_pairs(SHOWN)
    ]
    return table(("true class", "predicted class", "images of the true class"), rows)
