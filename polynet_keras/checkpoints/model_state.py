"""The variables that decide the rest of a training: those of the model, its optimizers and its metrics.

Keras's layers draw random numbers from `keras.random.SeedGenerator`s, whose states are among `model.variables`. The
global generators of Python, NumPy and TensorFlow, which `keras.utils.set_random_seed` seeds, decide initial values and
the seeds of layers and datasets. A resumed process repeats all of this in the same way, so they are not part of the
state. A layer or loss that draws from `tf.random` itself, without Keras's generators, is not reproduced.
"""

import re

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from polynet_keras.basics.keras_internals import strategy_of
from polynet_keras.basics.names import number_of, size_text
from polynet_keras.checkpoints.files import SavedState
from polynet_keras.cluster.workers import model_strategy, scope_of
from polynet_keras.engine.building import build

MODEL, OPTIMIZER, METRICS = "model", "optimizer", "metrics"

Description = dict[str, list[tuple[str, list[int], str]]]


def describe(model: keras.Model) -> Description:
    """Returns (path, shape, dtype) of every variable, by group: "model", each optimizer's attribute, and "metrics"."""

    def of(group: str, variable: keras.Variable) -> tuple[str, list[int], str]:
        # The path of an optimizer's variable depends on the place of its first call.
        path = variable.path if group in (MODEL, METRICS) else variable.name
        return path, list(variable.shape), variable.dtype

    return {group: [of(group, variable) for variable in variables] for group, variables in _groups(model).items()}


def read(model: keras.Model) -> dict[str, tf.Tensor | np.ndarray]:
    """Returns the current values of all variables by name; later assignments do not change them.

    No worker waits for another. Tensors of TensorFlow share the variables' memory until the variables are assigned.
    """
    values: dict[str, tf.Tensor | np.ndarray] = {}
    with scope_of(model_strategy(model)):
        for group, variables in _groups(model).items():
            for number, variable in enumerate(variables):
                values[_name(group, number)] = _totals(model, variable) if group == METRICS else _value(variable)
    return values


def first_not_finite(model: keras.Model) -> str | None:
    """Returns the path of a trained variable with an infinite or NaN value; None if there is none."""
    with scope_of(model_strategy(model)):
        for variable in model.trainable_variables:
            is_float = variable.dtype.startswith(("float", "bfloat"))
            if is_float and not ops.all(ops.isfinite(ops.convert_to_tensor(variable))):
                return variable.path
    return None


def check(model: keras.Model, saved: SavedState) -> None:
    """Makes the optimizer's variables, if they do not exist yet, and compares all variables with a checkpoint.

    Raises:
        ValueError: the checkpoint is from another model or optimizer; numbers in the names do not count.
    """
    found = saved.facts["variables"]
    optimizer = model.optimizer
    if OPTIMIZER in found and optimizer is not None and not optimizer.built:
        with scope_of(model_strategy(model)):
            optimizer.build(model.trainable_variables)
    expected = describe(model)
    for group in dict.fromkeys([*expected, *found]):
        if group != METRICS:
            _check_group(saved, group, found.get(group), expected.get(group))


def assign(model: keras.Model, saved: SavedState) -> None:
    """Sets the variables of the model and its optimizers to their saved values.

    Raises:
        ValueError: the checkpoint can no longer be read.
    """
    with scope_of(model_strategy(model)):
        for group, variables in _groups(model).items():
            # In a run with several phases on JAX, the newest checkpoint may have another phase's optimizer.
            if group != METRICS and len(variables) == len(saved.facts["variables"].get(group, ())):
                for number, variable in enumerate(variables):
                    value = saved.tensor(_name(group, number))
                    variable.assign(value.astype(variable.dtype) if value.dtype == bool else value)


def check_metrics(model: keras.Model, saved: SavedState, data_spec) -> None:
    """Makes the metrics' variables, if they do not exist yet, and compares them with those of a checkpoint.

    Args:
        model: a compiled model.
        saved: the checkpoint.
        data_spec: the specification of the training data, from which the variables are made; None if they exist.

    Raises:
        ValueError: the model was compiled with other metrics.
    """
    found = saved.facts["variables"][METRICS]
    if len(model.metrics_variables) != len(found) and data_spec is not None and strategy_of(model) is None:
        # On TensorFlow without a strategy, Keras makes the metrics' variables in the first step.
        build(model, None, data_spec)
    _check_group(saved, METRICS, found, describe(model)[METRICS])


def assign_metrics(model: keras.Model, saved: SavedState) -> None:
    """Sets the metrics to their saved totals."""
    with scope_of(model_strategy(model)):
        for number, variable in enumerate(model.metrics_variables):
            _assign_totals(model, variable, saved.tensor(_name(METRICS, number)))


def _groups(model: keras.Model) -> dict[str, list[keras.Variable]]:
    groups = {MODEL: model.variables}
    # A model with its own training step may have several optimizers, and not use the one it was compiled with.
    for attribute, value in vars(model).items():
        if isinstance(value, keras.optimizers.Optimizer) and value.built:
            groups[attribute] = value.variables
    groups[METRICS] = model.metrics_variables
    return groups


def _name(group: str, number: int) -> str:
    # Paths of variables need not be unique.
    return f"{group}/{number:05d}"


def _check_group(saved: SavedState, group: str, found: list | None, expected: list | None) -> None:
    advice = f"another model or compile() wrote {saved.path}; use that, or name another folder to start anew"
    if found is None or expected is None:
        where, elsewhere = ("checkpoint", "model here") if expected is None else ("model here", "checkpoint")
        raise ValueError(f"the {where} has variables of {group!r}, but the {elsewhere} has none: {advice}")
    for (path, shape, dtype), (own_path, own_shape, own_dtype) in zip(found, expected, strict=False):
        # In older files the switch of stochastic depth is a bool, not a number.
        same_dtype = dtype == own_dtype or (dtype, own_dtype) == ("bool", "float32")
        if (_plain(path), list(shape)) != (_plain(own_path), own_shape) or not same_dtype:
            raise ValueError(
                f"the checkpoint has a variable {path!r} ({dtype}, {size_text(shape)}) where {group!r} has "
                f"{own_path!r} ({own_dtype}, {size_text(own_shape)}): {advice}"
            )
    if len(found) != len(expected):
        raise ValueError(
            f"the checkpoint has {number_of(len(found), 'variable')} of {group!r}, but this training {len(expected)}: "
            f"{advice}"
        )


def _plain(path: str) -> str:
    """Returns a path without the numbers that Keras increases with every layer that a process makes."""
    return re.sub(r"_\d+(?=[/_]|$)", "", path)


def _value(variable: keras.Variable) -> tf.Tensor | np.ndarray:
    """Returns a variable's value. On JAX it is a copy: the next step takes the memory of the arrays that it gets."""
    if keras.backend.backend() == "tensorflow":
        return tf.convert_to_tensor(variable.value)
    return np.array(variable.value)


def _totals(model: keras.Model, variable: keras.Variable) -> tf.Tensor | np.ndarray:
    """Returns a metric's sum, or, if each replica has its own sum, those of this process: (replicas, ...)."""
    if not _is_in_parts(variable):
        return _value(variable)
    # The variable's own value is the sum of all replicas, which would need the other workers.
    return np.stack([part.numpy() for part in model.distribute_strategy.experimental_local_results(variable.value)])


def _assign_totals(model: keras.Model, variable: keras.Variable, totals: np.ndarray) -> None:
    """Restores a sum, saved in parts or not, to a variable in parts or not; other workers' parts are taken as ours."""
    was_in_parts = totals.ndim > len(variable.shape)
    if not _is_in_parts(variable):
        variable.assign(totals.sum(0, dtype=totals.dtype) if was_in_parts else totals)
        return
    parts = model.distribute_strategy.experimental_local_results(variable.value)
    if not was_in_parts:
        totals = totals[np.newaxis] / (model.distribute_strategy.num_replicas_in_sync // len(parts))
    if len(totals) != len(parts):
        totals = np.stack([totals.sum(0) / len(parts)] * len(parts))
    for part, total in zip(parts, totals, strict=True):
        part.assign(np.asarray(total, part.dtype.as_numpy_dtype))


def _is_in_parts(variable: keras.Variable) -> bool:
    """Whether each replica adds to its own sum, and reading the total is a collective, as for Keras's metrics."""
    return getattr(variable.value, "synchronization", None) == tf.VariableSynchronization.ON_READ
