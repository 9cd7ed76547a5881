"""Rematerialization by residual unit: what the backward pass needs of a unit is computed again, not kept."""

from collections.abc import Iterator
from dataclasses import dataclass

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
    `keras.StatelessScope`; the moving statistics that come out of it are assigned afterwards, once. Losses that layers
    add inside a unit (`activity_regularizer`) are not collected.

    Args:
        model: a functional model made of units, with one input and one output.
        remat: `"stage_b"`, the units of the stage that holds half of all activations, or `"all"`.

    Source: Chen et al., "Training deep nets with sublinear memory cost", 2016; `keras.remat` does it.
    """

    def __init__(self, model: keras.Model, remat: str):
        tensor = model.inputs[0]
        self._parts: list[_Part | _Rematerialized] = []
        for unit in _units(model):
            if remat == "all" or unit.layer.name.startswith(remat):
                self._parts += [_Part(tensor, unit.shortcut), _Rematerialized(unit)]
                tensor = unit.output
        self._parts.append(_Part(tensor, model.outputs[0]))

    def __call__(self, x):
        for part in self._parts:
            x = part(x, training=True)
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
    """Applies a unit to its shortcut."""

    def __init__(self, unit: _Unit):
        self._sum = unit.layer
        self._paths = _Part(unit.shortcut, unit.paths)
        self._layers = [o for o in self._paths.function.operations if isinstance(o, keras.Layer)]

    def __call__(self, shortcut, training):
        # A frozen layer's parameters are among the first: the layer does not change them.
        kept = [v for layer in self._layers for v in layer.variables if v.trainable or not layer.trainable]
        moving = [v for layer in self._layers for v in layer.variables if not (v.trainable or not layer.trainable)]

        def pure(shortcut, *values):
            with keras.StatelessScope(state_mapping=list(zip([*kept, *moving], values, strict=True))) as scope:
                paths = self._paths(shortcut, training=training)
                statistics = [scope.get_current_value(variable) for variable in moving]
            return (*paths, *statistics)

        values = [*map(_tensor, kept), *map(_copy, moving)]
        results = keras.remat(pure)(shortcut, *values)
        count = len(results) - len(moving)
        for variable, value in zip(moving, results[count:], strict=True):
            variable.assign(ops.stop_gradient(value))
        return self._sum([shortcut, *results[:count]], training=training)


def _tensor(variable: keras.Variable):
    """The variable's value as a tensor, of which `keras.remat` can take the gradient."""
    value = variable.value
    return value.read_value() if hasattr(value, "read_value") else value  # a `tf.Variable`


def _copy(variable: keras.Variable):
    """The variable's value now: PyTorch would hand on the memory that the next assignment writes to."""
    return ops.copy(_tensor(variable))


class _Part(keras.Layer):
    """A part of a network as a layer, whose call tells the layers inside whether they train.

    They learn it from the layer around them; a backward pass, and `stateless_call`, run outside of the model's call.
    """

    def __init__(self, inputs: KerasTensor, outputs: KerasTensor | list[KerasTensor]):
        super().__init__(name="part", dtype=keras.DTypePolicy("float32"), autocast=False)
        self.function = keras.Function(inputs, outputs)
        self.built = True

    def call(self, inputs, training=None):
        return self.function(inputs)
