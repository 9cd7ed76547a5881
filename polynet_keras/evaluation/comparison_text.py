"""A comparison of two models as text, for the command line and the report."""

from typing import TYPE_CHECKING

from polynet_keras.basics.names import number_of, shown
from polynet_keras.evaluation.metrics import wilson_interval

if TYPE_CHECKING:
    from polynet_keras.evaluation.comparing import Comparison

HEADER = ("model", "right", "top-1 %", "95 % interval", "loss", "images/s", "evaluated on")


def comparison_rows(comparison: "Comparison") -> list[tuple[str, ...]]:
    """Returns a row of `HEADER` for each model, named A and B, from the images that both were evaluated on."""
    paired = comparison.paired
    rows: list[tuple[str, ...]] = []
    for letter, evaluation, hits in (
        ("A", comparison.first, paired.first_hits),
        ("B", comparison.second, paired.second_hits),
    ):
        result = evaluation.result
        low, high = wilson_interval(hits, paired.images)
        rows.append(
            (
                f"{letter}: {shown(result.model)}",
                f"{hits} of {paired.images}",
                f"{100 * hits / paired.images:.2f}",
                f"{100 * low:.2f} to {100 * high:.2f}",
                f"{result.loss:.4f}",
                result.speed,
                f"{shown(result.dataset)}, {number_of(result.crops, 'crop')}",
            )
        )
    return rows


def comparison_facts(comparison: "Comparison") -> dict[str, str]:
    """Returns labelled facts: how many images each model gets right, the difference, and which model is better."""
    paired = comparison.paired
    low, high = (100 * end for end in paired.interval())
    right = {
        "both": paired.both,
        "A alone": paired.first_only,
        "B alone": paired.second_only,
        "neither": paired.neither,
    }
    if not (paired.first_only or paired.second_only):
        answer = "both are right on the same images: this data does not distinguish them"
    elif paired.better is None:
        answer = "not decided at 95 %: the difference may be chance"
    else:
        names = [shown(evaluation.result.model) for evaluation in (comparison.first, comparison.second)]
        better, worse = names if paired.better == 0 else names[::-1]
        answer = f"{'AB'[paired.better]} is better: {better} is right more often than {worse}"
    return {
        "right": ", ".join(f"{who} {images}" for who, images in right.items()),
        "difference": f"{100 * paired.difference:+.2f} points of top-1 for A; 95 % interval {low:+.2f} to {high:+.2f}; "
        f"McNemar's exact p-value {paired.p_value:.2g}",
        "answer": answer,
    }
