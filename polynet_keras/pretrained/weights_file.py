"""Loading a Keras weights file into a network, refused as a whole unless it is this very network's."""

import os
import zipfile
from contextlib import contextmanager

import h5py
import keras

SUFFIXES = (".weights.h5", ".keras")
HEAD = "predictions"


def check_weights_argument(weights: str | os.PathLike | None) -> None:
    """Refuses, before any layer is built, a `weights` argument that cannot be loaded.

    Raises:
        ValueError: `weights` is not `None` and not the path of an existing `.weights.h5` or `.keras` file.
    """
    accepted = f"None or the path of a {' or '.join(SUFFIXES)} file"
    if weights is None:
        return
    if isinstance(weights, str) and weights == "imagenet":
        raise ValueError(
            f"weights='imagenet': this version has no published checkpoint registered; weights must be {accepted}"
        )
    if not isinstance(weights, (str, os.PathLike)):
        raise ValueError(f"weights={weights!r} must be {accepted}")
    path = os.fspath(weights)
    if not os.path.isfile(path):
        raise ValueError(f"weights={path!r} is no file; weights must be {accepted}")
    if not path.endswith(SUFFIXES):
        raise ValueError(f"weights={path!r} must end in {' or '.join(SUFFIXES)}")


def load_weights_file(model: keras.Model, path: str | os.PathLike) -> None:
    """Loads `path` into `model` if its layers, by name, shapes and order, are the model's; else leaves the model alone.

    The classifier of the file is left out for a model that has none (`include_top=False`).

    Args:
        model: the network.
        path: a `.weights.h5` or `.keras` file.

    Raises:
        ValueError: the file is unreadable, or is not of this network; the message names the first difference.
    """
    path = os.fspath(path)
    try:
        with _open_h5(path) as file:
            stored = _stored_shapes(file)
    except (OSError, KeyError, zipfile.BadZipFile) as error:
        raise ValueError(f"weights={path!r} is not a readable Keras weights file: {error}") from None
    wanted = {layer.name: _shapes(layer) for layer in model.layers if _shapes(layer)}
    if HEAD not in wanted:
        stored.pop(HEAD, None)
    difference = _difference(stored, wanted) or _other_order(list(stored), model)
    if difference:
        raise ValueError(f"weights={path!r} is not a file of the network {model.name!r}: {difference}")
    model.load_weights(path)


@contextmanager
def _open_h5(path: str):
    if path.endswith(".keras"):
        with zipfile.ZipFile(path) as archive, archive.open("model.weights.h5") as member, h5py.File(member) as file:
            yield file
    else:
        with h5py.File(path) as file:
            yield file


def _stored_shapes(file: h5py.File) -> dict[str, list[tuple[int, ...]]]:
    """The shapes of each layer's own variables, by the layer's name, which Keras writes beside them.

    Keras finds a layer in the file by its class and its number among the layers of that class (`conv2d_12`), not by
    its name: the order here is that of these numbers, so that it can be compared too.
    """
    shapes = {}
    for key in sorted(file["layers"], key=_class_and_number):
        variables = file["layers"][key].get("vars", {})
        if len(variables):
            shapes[variables.attrs["name"]] = [variables[str(i)].shape for i in range(len(variables))]
    return shapes


def _class_and_number(key: str) -> tuple[str, int]:
    head, _, tail = key.rpartition("_")
    return (head, int(tail)) if tail.isdigit() else (key, 0)


def _shapes(layer: keras.Layer) -> list[tuple[int, ...]]:
    """Of the variables that Keras stores in the layer's own group: those of its parts have groups of theirs."""
    own = [*layer._trainable_variables, *layer._non_trainable_variables]
    return [tuple(variable.shape) for variable in own]


def _difference(stored: dict, wanted: dict) -> str | None:
    if HEAD in wanted and HEAD in stored:
        (features, classes), (expected_features, expected_classes) = (shapes[HEAD][0] for shapes in (stored, wanted))
        if features == expected_features and classes != expected_classes:
            return f"its classifier has classes={classes}, the network classes={expected_classes}"
    for name in wanted:
        if name not in stored:
            return f"it has no layer {name!r} (the network has {len(wanted)} layers with weights, it has {len(stored)})"
    for name in stored:
        if name not in wanted:
            return f"its layer {name!r} is not in the network ({len(wanted)} layers with weights, it has {len(stored)})"
    for name in wanted:
        if stored[name] != wanted[name]:
            return f"the variables of layer {name!r} have shapes {stored[name]} in it, {wanted[name]} in the network"
    return None


def _other_order(stored: list[str], model: keras.Model) -> str | None:
    by_class: dict[type, list[str]] = {}
    for layer in model.layers:
        if _shapes(layer):
            by_class.setdefault(type(layer), []).append(layer.name)
    for wanted in by_class.values():
        found = [name for name in stored if name in set(wanted)]
        for name, other in zip(wanted, found, strict=True):
            if name != other:
                return f"its layer {other!r} stands where the network has {name!r}"
    return None
