"""A checkpoint's arrays into a network: every array used, every variable filled, all shapes equal, or nothing done."""

import math
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from absl import logging

from polynet_keras.basics.keras_internals import own_variables
from polynet_keras.basics.names import number_of, quoted, size_text
from polynet_keras.layers.stochastic_residual_scaling import StochasticResidualScaling
from polynet_keras.models.residual_scale import scales_and_survival
from polynet_keras.pretrained.formats import opened_checkpoint
from polynet_keras.pretrained.open_file import SLACK, Source, name_of
from polynet_keras.pretrained.stored_arrays import TABLES, Checkpoint, Format, StoredArray, values_of

HEAD = "predictions"

KERAS_NAMES = {
    "convolution": {"kernel": "kernel"},
    "normalization": {name: name for name in ("gamma", "beta", "moving_mean", "moving_variance")},
    "classifier": {"kernel": "kernel", "bias": "bias"},
}
TORCH_NAMES = {
    "convolution": {"weight": "kernel"},
    "normalization": {
        "weight": "gamma",
        "bias": "beta",
        "running_mean": "moving_mean",
        "running_var": "moving_variance",
    },
    "classifier": {"weight": "kernel", "bias": "bias"},
}
"""What a framework calls the variables of a layer, and ours."""


class DifferentNetworkError(ValueError):
    """A checkpoint is not of the network that it was to be loaded into."""


@dataclass(frozen=True)
class LoadReport:
    """What was found in a checkpoint and done with it.

    Attributes:
        format: who wrote it.
        arrays: number of arrays in it.
        parameters: number of values in the arrays that were used.
        head: "loaded", "fresh" (the network has other classes, its classifier keeps its initial values) or "left out"
            (the network has no classifier).
    """

    format: Format
    arrays: int
    parameters: int
    head: str


def load_weights_file(model: keras.Model, source: Source) -> LoadReport:
    """Loads a checkpoint file into a network, or leaves the network as it is.

    Names, shapes and dtypes are compared with the network's before a value is read. Beside the network, it takes as
    much memory as the network has, and at most 128 MiB more, whatever the file claims.

    The classifier of the file is left out for a network without one (`include_top=False`), and for one of other
    `classes`, whose own classifier stays as it was initialized. A published file holds no factors on the residual
    paths: the network gets those of the released net.

    Args:
        model: the network.
        source: a file of any format that `formats.opened_checkpoint` reads: its path, or the file, open for reading.

    Raises:
        ValueError: the file is unreadable, or is not of this network; the message names the first difference.

    Examples:
        >>> model = InceptionResNet((1, 1, 1), width=0.1)
        >>> model.save_weights(folder / "small.weights.h5")
        >>> load_weights_file(model, folder / "small.weights.h5").head
        'loaded'
    """
    size = sum(math.prod(v.shape) * np.dtype(v.dtype).itemsize for v in _variables(model).values())
    with opened_checkpoint(source, size + SLACK) as checkpoint:
        try:
            return load_checkpoint(model, checkpoint)
        except DifferentNetworkError as error:
            raise DifferentNetworkError(f"weights={name_of(source)!r}: {error}") from None


def classes_of(checkpoint: Checkpoint) -> int | None:
    """How many classes the classifier of a published checkpoint has; `None` if it has none."""
    key = next((key for key, name in _published_table(checkpoint.format).items() if name == f"{HEAD}/kernel"))
    kernel = checkpoint.arrays.get(key)
    return None if kernel is None else kernel.shape[-1]


def load_checkpoint(model: keras.Model, checkpoint: Checkpoint) -> LoadReport:
    """`load_weights_file`, of a checkpoint that is open or has been read."""
    variables = _variables(model)
    arrays, table = dict(checkpoint.arrays), _table(checkpoint, model)
    head = _settle_head(arrays, table, variables)
    states = {} if checkpoint.format is Format.KERAS else _released_states(model)
    switches = {f"{layer.name}/active" for layer in model.layers if isinstance(layer, StochasticResidualScaling)}
    expected = {name: v for name, v in variables.items() if name not in states}
    difference = _difference(arrays, table, expected, switches)
    if difference:
        raise DifferentNetworkError(
            f"a checkpoint of {checkpoint.format} that is not of the network {model.name!r}: {difference}"
        )
    # All of them are read before the first one is assigned: damage in the last one leaves the network as it is. Each is
    # kept in the network's dtype, which may have fewer bytes than the file's.
    values = {
        table[key]: _cast(values_of(array), key, table[key], variables[table[key]].dtype)
        for key, array in arrays.items()
    }
    for name, value in values.items():
        variables[name].assign(value)
    for name, value in states.items():
        variables[name].assign(value)
    if head == "fresh":
        logging.warning(
            "the classifier of the weights has other classes than the network %r and was left out; %r keeps its "
            "initial values",
            model.name,
            HEAD,
        )
    return LoadReport(checkpoint.format, len(checkpoint.arrays), sum(array.size for array in arrays.values()), head)


def _cast(values: np.ndarray, key: str, name: str, dtype: str) -> np.ndarray:
    """The values in the network's dtype, rounded where that has fewer digits."""
    with np.errstate(over="ignore"):
        cast = values.astype(dtype, copy=False)
    if cast.dtype.itemsize <= values.dtype.itemsize and cast.dtype != values.dtype:
        large = np.isfinite(values) & ~np.isfinite(cast)
        if large.any():
            value = values[large].flat[0]
            raise DifferentNetworkError(
                f"its {quoted(key)} has the value {value:g}, which the {dtype} of the network's variable {name!r} does "
                "not reach; build the network in float32"
            )
    return cast


def _variables(model: keras.Model) -> dict[str, keras.Variable]:
    """By `layer/variable`; the state of random generators, which are no weights, is not among them."""
    return {f"{layer.name}/{variable.name}": variable for layer in model.layers for variable in own_variables(layer)}


def _table(checkpoint: Checkpoint, model: keras.Model) -> dict[str, str]:
    """From the checkpoint's key to our `layer/variable`."""
    if checkpoint.format is Format.KERAS:
        return {
            f"{layer.name}/{number}": f"{layer.name}/{variable.name}"
            for layer in model.layers
            for number, variable in enumerate(own_variables(layer))
        }
    return _published_table(checkpoint.format)


def _published_table(format_: Format) -> dict[str, str]:
    separator, names = ("/", KERAS_NAMES) if format_ is Format.TF2CV else (".", TORCH_NAMES)
    return {
        f"{source}{separator}{theirs}": f"{ours}/{variable}"
        for source, ours in TABLES[format_]().items()
        for theirs, variable in names[_kind(ours)].items()
    }


def _kind(layer: str) -> str:
    if layer == HEAD:
        return "classifier"
    return "normalization" if layer.endswith("_bn") else "convolution"


def _settle_head(arrays: dict[str, Any], table: dict[str, str], variables: dict[str, keras.Variable]) -> str:
    """Takes the classifier out of what is to be loaded where it does not belong; returns what becomes of it."""
    theirs = [key for key in arrays if table.get(key, key).startswith(f"{HEAD}/")]
    ours = [name for name in variables if name.startswith(f"{HEAD}/")]
    kernel = f"{HEAD}/kernel"
    outcome = "left out"
    if ours:
        outcome = "fresh"
        found = next((arrays[key].shape for key in theirs if table.get(key) == kernel), None)
        wanted = tuple(variables[kernel].shape)
        if found is None or found[:-1] != wanted[:-1] or found == wanted:
            return "loaded"  # unless it differs otherwise, which is an error
    for key in theirs:
        del arrays[key]
    for name in ours:
        del variables[name]
    return outcome


def _released_states(model: keras.Model) -> dict[str, np.ndarray]:
    """What decides the residual factors of the released net, by `layer/variable`: its files do not hold it."""
    sums = [layer for layer in model.layers if isinstance(layer, StochasticResidualScaling)]
    states = {}
    for layer, scale, survival in zip(sums, *scales_and_survival(None, len(sums)), strict=True):
        states[f"{layer.name}/scale"] = np.full(layer.scale.shape, scale, "float32")
        states[f"{layer.name}/survival_probability"] = np.full(layer.survival_probability.shape, survival, "float32")
        states[f"{layer.name}/active"] = np.zeros((), "float32")
    return states


def _difference(
    arrays: dict[str, np.ndarray | StoredArray],
    table: dict[str, str],
    variables: dict[str, keras.Variable],
    switches: set[str],
) -> str | None:
    """The first array without a variable, variable without an array, or shape or dtype that is another.

    Args:
        switches: the variables that were a bool before they were a number; both are taken.
    """
    sources = {name: key for key, name in table.items()}
    counts = f"the network has {number_of(len(variables), 'variable')}, the file {number_of(len(arrays), 'array')}"
    for key, array in arrays.items():
        if table.get(key) not in variables:
            return f"its {quoted(key)} of {size_text(array.shape)} has no variable in the network ({counts})"
    for name, variable in variables.items():
        key, shape = sources.get(name, name), tuple(variable.shape)
        if key not in arrays:
            return f"it has no {key!r} for the network's variable {name!r} of {size_text(shape)} ({counts})"
        if arrays[key].shape != shape:
            return f"its {key!r} is {size_text(arrays[key].shape)}, the network's variable {name!r} {size_text(shape)}"
        if not (_fits(arrays[key].dtype, variable.dtype) or (name in switches and arrays[key].dtype == bool)):
            return f"its {key!r} has the dtype {arrays[key].dtype}, the network's variable {name!r} {variable.dtype}"
    return None


def _fits(dtype: np.dtype, variable_dtype: str) -> bool:
    """Fractions into fractions; without fractions, into the same dtype or one that holds all of its numbers."""
    if "float" in variable_dtype:
        return dtype.kind == "f"
    return dtype.kind == np.dtype(variable_dtype).kind and np.can_cast(dtype, variable_dtype)
