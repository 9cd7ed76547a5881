"""Weights of examples in the loss, by class: from the classes' sizes, or from a file."""

import csv
import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from polynet_keras.basics.checks import is_number, near_name
from polynet_keras.basics.names import quoted, shown

BALANCED = "balanced"
COLUMNS = ("class", "weight")
EXPECTED = 'JSON such as {"cat": 2.5, "dog": 1}, or a table.csv with the columns class and weight'


def check_class_weights(weights: str | Mapping[str, float] | None) -> None:
    """Refuses everything but None, `"balanced"` and a mapping of classes to finite weights of at least 0.

    Raises:
        ValueError: the weights are invalid; the message names the class, if there is one.
    """
    if weights is None or weights == BALANCED:
        return
    if not isinstance(weights, Mapping):
        raise ValueError(f"class_weights={weights!r} must be 'balanced', or a weight by the name of each class")
    for name, weight in weights.items():
        if not isinstance(name, str) or not is_number(weight) or weight < 0:
            raise ValueError(f"class_weights={{{name!r}: {weight!r}}} must give a class a finite weight of at least 0")
    if not weights:
        raise ValueError("class_weights={} names no class; leave it out where every image counts the same")


def weights_by_label(weights: str | Mapping[str, float], class_names: Sequence[str], labels: np.ndarray) -> np.ndarray:
    """Returns the weight of each class.

    Args:
        weights: weights by name; other classes weigh 1. Or `"balanced"`: n / (k · n_c) for a class with n_c of the n
            examples of k classes, as in scikit-learn, so that all classes weigh the same and the mean over the examples
            is 1.
        class_names: names by label.
        labels: labels of the training examples, int64 array (count,).

    Returns:
        float64 array (classes,).

    Raises:
        ValueError: a name is not a class, or no training example has a weight.
    """
    counts = np.bincount(labels, minlength=len(class_names))
    if isinstance(weights, str):
        return np.where(counts > 0, len(labels) / (np.count_nonzero(counts) * np.maximum(counts, 1)), 1.0)
    unknown = next((name for name in weights if name not in class_names), None)
    if unknown is not None:
        raise ValueError(
            f"class_weights name the class {quoted(unknown)}, which is none of the {len(class_names)} classes of the "
            f"data{near_name(unknown, class_names)}"
        )
    table = np.array([weights.get(name, 1.0) for name in class_names], "float64")
    if not (table[counts > 0] > 0).any():
        raise ValueError("class_weights leave nothing to train on: each class with a training image has the weight 0")
    return table


def read_class_weights(path: str | os.PathLike) -> dict[str, float]:
    """Reads weights by class: a JSON object, or a CSV file with the columns `class` and `weight`.

    Raises:
        ValueError: the file cannot be read or is neither; the message names it, and the line or the class.
    """
    name = f"class_weights='{shown(path)}'"
    suffix = Path(path).suffix.lower()
    if suffix not in (".json", ".csv"):
        near = near_name(os.path.basename(path), [BALANCED])
        raise ValueError(f"{name} is neither 'balanced' nor a file ending in .json or .csv; expected {EXPECTED}{near}")
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except OSError as error:
        raise ValueError(f"{name} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ValueError(f"{name} is not UTF-8 text; expected {EXPECTED}") from None
    pairs = _of_json(text, name) if suffix == ".json" else _of_csv(text, name)
    weights: dict[str, float] = {}
    for class_name, weight in pairs:
        if class_name in weights:
            raise ValueError(f"{name} has the class {quoted(class_name)} twice")
        weights[class_name] = weight
    if not weights:
        raise ValueError(f"{name} names no class; expected {EXPECTED}")
    return weights


def _of_json(text: str, name: str) -> list[tuple[str, float]]:
    try:
        pairs = json.loads(text, object_pairs_hook=list)
    except ValueError as error:
        raise ValueError(f"{name} is not JSON: {error}; expected {EXPECTED}") from None
    is_object = isinstance(pairs, list) and all(isinstance(pair, tuple) for pair in pairs)
    if not is_object:
        raise ValueError(f"{name} holds no object; expected {EXPECTED}")
    for class_name, weight in pairs:
        if not is_number(weight):
            raise ValueError(f"{name}: the weight of {quoted(class_name)} is not a number; expected {EXPECTED}")
    return pairs


def _of_csv(text: str, name: str) -> list[tuple[str, float]]:
    reader = csv.reader(text.splitlines(), strict=True, skipinitialspace=True)
    try:
        header = [column.strip().lower() for column in next(reader, [])]
        if sorted(header) != sorted(COLUMNS):
            raise ValueError(f"its first line must be {','.join(COLUMNS)}")
        pairs = []
        for fields in filter(None, reader):
            if len(fields) != 2:
                raise ValueError(f"line {reader.line_num} does not have two fields")
            row = dict(zip(header, (field.strip() for field in fields), strict=True))
            try:
                weight = float(row["weight"])
            except ValueError:
                weight = math.nan
            if not math.isfinite(weight):
                raise ValueError(f"line {reader.line_num}: the weight {quoted(row['weight'])} is not a number")
            pairs.append((row["class"], weight))
    except (ValueError, csv.Error) as error:
        raise ValueError(f"{name}: {error}; expected {EXPECTED}") from None
    return pairs
