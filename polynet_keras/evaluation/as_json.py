"""The output of `polynet evaluate --json`; docs/evaluation.md describes it."""

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from polynet_keras.evaluation.results import as_json

if TYPE_CHECKING:
    from polynet_keras.evaluation.comparing import Comparison
    from polynet_keras.evaluation.evaluating import Evaluation

SCHEMA = 1
"""Version of the document: it rises when a field is removed or changes its meaning, not when one is added."""


def evaluation_as_json(evaluation: "Evaluation") -> dict[str, Any]:
    """Returns an evaluation as JSON values; `None` means unknown or undefined."""
    result, counts = evaluation.result, evaluation.counts
    numbers = {
        "precision": _shares(counts.class_precision),
        "recall": _shares(counts.class_accuracy),
        "f1": _shares(counts.class_f1),
    }
    parts = {
        "name": evaluation.class_names,
        "images": counts.class_images.tolist(),
        "predicted": counts.class_predictions.tolist(),
        "right": counts.confusion.diagonal().tolist(),
        **numbers,
    }
    return {
        "schema": SCHEMA,
        "result": as_json(result),
        "classes": [dict(zip(parts, values, strict=True)) for values in zip(*parts.values(), strict=True)],
        "means": {name: _mean(values) for name, values in numbers.items()},
        "confusion": counts.confusion.tolist(),
        "skipped": [{"index": index, "reason": evaluation.skipped[index]} for index in sorted(evaluation.skipped)],
    }


def comparison_as_json(comparison: "Comparison") -> dict[str, Any]:
    """Returns the first evaluation as JSON values, with the second one and the comparison inside."""
    paired = comparison.paired
    low, high = paired.interval()
    return evaluation_as_json(comparison.first) | {
        "against": evaluation_as_json(comparison.second),
        "comparison": {
            "images": paired.images,
            "both_right": paired.both,
            "model_only": paired.first_only,
            "against_only": paired.second_only,
            "both_wrong": paired.neither,
            "difference": 100 * paired.difference,
            "difference_low": 100 * low,
            "difference_high": 100 * high,
            "p_value": paired.p_value,
            "better": None if paired.better is None else ("model", "against")[paired.better],
        },
    }


def _shares(shares: np.ndarray) -> list[float | None]:
    return [None if math.isnan(share) else share for share in shares.tolist()]


def _mean(shares: list[float | None]) -> float:
    return float(np.mean([share for share in shares if share is not None]))
