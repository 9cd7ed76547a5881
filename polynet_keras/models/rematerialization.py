"""Rematerialization by residual unit: what the backward pass needs of a unit is computed again, not kept."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import keras
from keras import KerasTensor, ops

from polynet_keras.layers import StochasticResidualScaling

REMAT = ("none", "stage_b", "all")


def check_remat(remat: str) -> None:
    """Raises a `ValueError` unless `remat` is one of `REMAT`."""
    if remat not in REMAT:
        raise ValueError(f"remat={remat!r} must be one of {REMAT}")


class RematerializedGraph:
    """The forward pass of a network in training, its residual paths rematerialized.

    Of each unit chosen, the shortcut is kept and everything between it and the unit's sum is computed a second time in
    the backward pass: convolutions, normalizations and activations of all its paths. The sum stays outside, so that
    stochastic depth draws once. A unit runs as a pure function of its shortcut and its variables' values, in a
    `keras.StatelessScope`; the moving statistics that come out of it are assigned afterwards, once.

    Args:
        model: a functional model made of units, with one input and one output.
        remat: `"stage_b"`, the units of the stage that holds half of all activations, or `"all"`.

    Source: Chen et al., "Training deep nets with sublinear memory cost", 2016; `keras.remat` does it.
    """

    def __init__(self, model: keras.Model, remat: str):
        tensor = model.inputs[0]
        self._steps: list[Callable[[Any], Any]] = []
        for unit in _units(model):
            if remat == "all" or unit.layer.name.startswith(remat):
                self._steps += [keras.Function(tensor, unit.shortcut), _Rematerialized(unit)]
                tensor = unit.output
        self._steps.append(keras.Function(tensor, model.outputs[0]))

    def __call__(self, x):
        for step in self._steps:
            x = step(x)
        return x


@dataclass(frozen=True)
class _Unit:
    """A residual unit in the symbolic graph: `output = layer([shortcut, *paths])`."""

    layer: StochasticResidualScaling
    shortcut: KerasTensor
    paths: list[KerasTensor]
    output: KerasTensor


def _units(model: keras.Model) -> Iterator[_Unit]:
    for layer in model.layers:
        if isinstance(layer, StochasticResidualScaling):
            shortcut, *paths = layer.input
            yield _Unit(layer, shortcut, paths, layer.output)


class _Rematerialized:
    """Applies a unit to its shortcut, in training."""

    def __init__(self, unit: _Unit):
        self._sum = unit.layer
        self._paths = _Paths(keras.Function(unit.shortcut, unit.paths), dtype=unit.layer.dtype_policy, name="paths")
        operations = self._paths.function.operations
        layers = [operation for operation in operations if isinstance(operation, keras.Layer)]
        self._trainable = [v for layer in layers for v in layer.trainable_variables]
        self._fixed = [v for layer in layers for v in layer.non_trainable_variables]

    def __call__(self, shortcut):
        variables = [*self._trainable, *self._fixed]

        def pure(shortcut, *values):
            with keras.StatelessScope(state_mapping=list(zip(variables, values, strict=True))) as scope:
                # Said anew, for the backward pass runs this outside of the model's call.
                paths = self._paths(shortcut, training=True)
                statistics = [scope.get_current_value(variable) for variable in self._fixed]
            return (*paths, *statistics)

        results = keras.remat(pure)(shortcut, *map(_tensor, variables))
        count = len(results) - len(self._fixed)
        for variable, value in zip(self._fixed, results[count:], strict=True):
            variable.assign(ops.stop_gradient(value))
        return self._sum([shortcut, *results[:count]])


def _tensor(variable: keras.Variable):
    """The variable's value as a tensor, of which `keras.remat` can take the gradient."""
    value = variable.value
    return value.read_value() if hasattr(value, "read_value") else value  # a `tf.Variable`


class _Paths(keras.Layer):
    """The residual paths of a unit as a layer, whose call says to theirs whether they train."""

    def __init__(self, function: keras.Function, **kwargs):
        super().__init__(**kwargs)
        self.function = function
        self.built = True

    def call(self, inputs, training=None):
        return self.function(inputs)
