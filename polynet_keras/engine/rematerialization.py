"""Rematerialization by residual unit: the backward pass computes a unit again instead of keeping its activations."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import keras
from keras import KerasTensor, ops

from polynet_keras.basics.keras_internals import nodes_by_depth
from polynet_keras.layers.stochastic_residual_scaling import StochasticResidualScaling


class RematerializedGraph:
    """The forward pass of a network in training, with rematerialized residual paths.

    For each chosen unit, the shortcut is kept, and the backward pass computes everything between the shortcut and the
    unit's sum a second time: convolutions, normalizations and activations of all its paths. The sum stays outside, so
    stochastic depth draws once. A unit runs as a pure function of its shortcut and its variables' values, in a
    `keras.StatelessScope`; its new moving statistics are assigned afterwards, once. Losses that layers add inside a
    unit (`activity_regularizer`) are not collected.

    The model may have any inputs and outputs. If another part of the model uses a tensor inside a unit, for example as
    an output, the unit is computed as in Keras: a second computation would save nothing.

    Args:
        model: a functional model; models inside it handle their own units.
        remat: `"stage_b"`, the units of the stage that holds half of all activations, or `"all"`.

    Source: Chen et al., "Training deep nets with sublinear memory cost", 2016; implemented with `keras.remat`.
    """

    def __init__(self, model: keras.Model, remat: str):
        self._inputs, self._outputs = model.inputs, model.outputs
        self._structure = model.output
        nodes = nodes_by_depth(model)
        calls = [call for depth in sorted(nodes, reverse=True) for call in nodes[depth] if not call.is_input]
        units = [unit for unit in _units(calls, model.outputs) if remat == "all" or unit.name.startswith(remat)]
        self.units = {id(unit.call): _Rematerialized(unit) for unit in units}
        # A unit runs at the place of its first call, so that shared layers are called in Keras's order.
        place = {id(call): number for number, call in enumerate(calls)}
        places = {min(place[id(call)] for call in unit.inside): unit.call for unit in units}
        rest = {id(unit.call) for unit in units} | {id(call) for unit in units for call in unit.inside}
        self._calls = [
            places.get(number, call) for number, call in enumerate(calls) if number in places or id(call) not in rest
        ]
        self._part = _Part(self._run)

    def __call__(self, inputs: list):
        """Returns the outputs in the model's structure, for its inputs in their order."""
        outputs = keras.tree.pack_sequence_as(self._structure, self._part(inputs, training=True))
        # Keras also returns the single tensor of a list.
        return outputs[0] if isinstance(outputs, (list, tuple)) and len(outputs) == 1 else outputs

    def _run(self, inputs: list) -> list:
        values = {id(tensor): value for tensor, value in zip(self._inputs, inputs, strict=True)}
        for call in self._calls:
            if unit := self.units.get(id(call)):
                results = unit(values[id(call.input_tensors[0])], training=True)
            else:
                arguments, options = call.arguments.fill_in(values)
                results = call.operation(*arguments, **options)
            for tensor, value in zip(call.outputs, keras.tree.flatten(results), strict=True):
                values[id(tensor)] = value
        return [values[id(tensor)] for tensor in self._outputs]


@dataclass(frozen=True)
class _Unit:
    """A residual unit in the symbolic graph: `output = layer([shortcut, *paths])`.

    Attributes:
        call: one call of the layer; a shared layer has several.
        inside: the calls between the shortcut and the sum.
    """

    call: Any
    inside: list[Any]

    @property
    def name(self) -> str:
        return self.call.operation.name


def _units(calls: list, outputs: list[KerasTensor]) -> Iterator[_Unit]:
    """Yields the units of a model whose inner tensors are not used elsewhere."""
    made_by = {id(tensor): call for call in calls for tensor in call.outputs}
    used_by: dict[int, list] = {}
    for call in calls:
        for tensor in call.input_tensors:
            used_by.setdefault(id(tensor), []).append(call)
    for call in calls:
        if not isinstance(call.operation, StochasticResidualScaling):
            continue
        shortcut, *paths = call.input_tensors
        inside: dict[int, Any] = {}
        pending = [tensor for tensor in paths if tensor is not shortcut]
        closed = True  # so far, all paths start at the shortcut
        while pending and closed:
            maker: Any = made_by.get(id(pending.pop()))
            closed = maker is not None and not isinstance(maker.operation, StochasticResidualScaling)
            if closed and id(maker) not in inside:
                inside[id(maker)] = maker
                pending += [tensor for tensor in maker.input_tensors if tensor is not shortcut]
        within = {id(call), *inside}
        results = [tensor for maker in inside.values() for tensor in maker.outputs]
        seen = {id(tensor) for tensor in outputs} & {id(tensor) for tensor in results}
        if (
            closed
            and inside
            and not seen
            and all(id(user) in within for t in results for user in used_by.get(id(t), []))
        ):
            yield _Unit(call, list(inside.values()))


class _Rematerialized:
    """Applies a unit to its shortcut."""

    def __init__(self, unit: _Unit):
        self._sum = unit.call.operation
        shortcut, *paths = unit.call.input_tensors
        function = keras.Function(shortcut, paths)
        self._paths = _Part(function)
        self._layers = [o for o in function.operations if isinstance(o, keras.Layer)]

    def __call__(self, shortcut, training):
        kept: list[keras.Variable] = []
        moving: list[keras.Variable] = []
        for layer in self._layers:
            for variable in layer.variables:  # a frozen layer changes none
                (kept if variable.trainable or not layer.trainable else moving).append(variable)

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
    """Returns the variable's value as a tensor for which `keras.remat` can compute the gradient."""
    value = variable.value
    return value.read_value() if hasattr(value, "read_value") else value  # a `tf.Variable`


def _copy(variable: keras.Variable):
    """Returns a copy of the variable's value: PyTorch would return memory that the next assignment overwrites."""
    return ops.copy(_tensor(variable))


class _Part(keras.Layer):
    """A part of a network as a layer. Its call tells the inner layers whether they train.

    They get this from the layer around them; a backward pass and `stateless_call` run outside of the model's call.
    """

    def __init__(self, function: Callable[[Any], Any]):
        super().__init__(name="part", dtype=keras.DTypePolicy("float32"), autocast=False)
        self._function = function
        self.built = True

    def call(self, inputs, training=None):
        return self._function(inputs)
