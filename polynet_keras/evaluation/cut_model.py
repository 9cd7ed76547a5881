"""A classifier in two parts: from the images to the output of one layer, and from there to the logits."""

import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import keras
from keras import ops

from polynet_keras.basics.checks import near_name
from polynet_keras.basics.keras_internals import functional_of, nodes_by_depth
from polynet_keras.basics.names import listed
from polynet_keras.evaluation.outputs import ACTIVATED, softmax_of, without_activation
from polynet_keras.models.parts import PARTS, ends_of_parts

IMAGE = 0
"""The index of the model's input."""
FINE = 5
"""Least places, in each direction, of the default map. For an image of 131 px, stage C has 2."""


@dataclass(eq=False)
class Call:
    """One application of a layer or an operation, in the model or in a nested one.

    Attributes:
        node: Keras's node, with symbolic tensors.
        run: the layer, or the replacement of the last softmax.
        inputs, outputs: the model's own indices of its tensors.
        last_uses: indices of the tensors that no later call takes.
        places: height and width of the output if it has one value per place of the image and channel; `None` for an
            unknown side.
    """

    node: Any
    run: Callable
    inputs: list[int]
    outputs: list[int]
    last_uses: set[int] = field(default_factory=set)
    places: Sequence[int | None] = ()

    @property
    def name(self) -> str:
        return self.node.operation.name


class CutModel:
    """A classifier, cut at the layer whose gradient is wanted.

    The layers are called one by one, not as a compiled step: for a few images, this takes less time than compilation.
    The logits are the input of the last softmax, which is removed, in a nested model too; a model without softmax ends
    in logits. Anything that does not depend on the layer is not part of the gradient.

    Args:
        model: a functional or sequential Keras model of one input and one output; nested models must be of the same
            kind.
        stage: a part of a PolyNet by the names of its layers, cut at its end; or the name of a layer whose output is a
            map. `None` selects the last layer that everything passes through with a map of at least `FINE` by `FINE`
            places.
        sides: height and width of the images; they decide the maps' sizes if the model takes images of any size.

    Attributes:
        stage: the part, or the layer.

    Raises:
        ValueError: the model is of another kind, or has no such map.
    """

    def __init__(self, model: keras.Model, stage: str | None = None, sides: Sequence[int] = ()):
        softmax = softmax_of(model)
        calls, self._logits = _calls(model)
        _settle_places(calls, model, sides)
        if softmax is not None:
            last = next(call for call in reversed(calls) if call.node.operation is softmax)
            last.run = without_activation(softmax) if isinstance(softmax, ACTIVATED[:2]) else _first
        if not any(map(_is_map, calls)):
            raise ValueError(
                f"model {model.name!r} has no layer that puts out a map: a value for each place and channel"
            )
        cut = _last_map(calls) if stage is None else _named(model.name, calls, stage)
        self.stage = next((part for part, end in ends_of_parts(calls).items() if end is cut), cut.name)
        (self._map,) = cut.outputs
        after = {self._map}
        self._before: list[Call] = []
        self._after: list[Call] = []
        for call in calls:
            if call is not cut and not after.isdisjoint(call.inputs):
                after.update(call.outputs)
                self._after.append(call)
            else:
                self._before.append(call)
        self._dtype = model.inputs[0].dtype
        used: set[int] = {self._map, self._logits}
        for call in reversed([*self._before, *self._after]):
            call.last_uses = {*call.inputs, *call.outputs} - used
            used.update(call.inputs)

    def before(self, images: Any) -> tuple[Any, dict[int, Any]]:
        """Returns the layer's output for a batch of images, and the other inputs of the second part."""
        values = {IMAGE: ops.convert_to_tensor(images, self._dtype)}
        for call in self._before:
            _run(call, values)
            for number in call.last_uses:
                values.pop(number, None)
        return values.pop(self._map), values

    def after(self, activations: Any, values: dict[int, Any]) -> Any:
        """Returns the logits, float32 (batch, classes), from the results of `before`."""
        values = {**values, self._map: activations}
        for call in self._after:
            _run(call, values)
        return ops.cast(values[self._logits], "float32")


def _run(call: Call, values: dict[int, Any]) -> None:
    given = {id(tensor): values[number] for tensor, number in zip(call.node.input_tensors, call.inputs, strict=True)}
    arguments, options = call.node.arguments.fill_in(given)
    results = keras.tree.flatten(call.run(*arguments, **options))
    values.update(zip(call.outputs, results, strict=True))


def _first(x: Any, *_: Any, **__: Any) -> Any:
    return x


def _calls(model: keras.Model) -> tuple[list[Call], int]:
    """Returns the calls that a model's output needs, inputs first, nested models included; and the output's index."""
    if graph_of(model) is None or len(model.inputs) != 1 or len(model.outputs) != 1:
        raise ValueError(
            f"model {model.name!r} must be a functional or sequential Keras model of one input and one output"
        )
    calls: list[Call] = []
    (output,) = _read(model, [IMAGE], calls, functools.partial(next, count(IMAGE + 1)))
    needed = {output}
    for call in reversed(calls):
        if not needed.isdisjoint(call.outputs):
            needed.update(call.inputs)
    return [call for call in calls if not needed.isdisjoint(call.outputs)], output


def _read(model: keras.Model, inputs: Sequence[int], calls: list[Call], number: Callable[[], int]) -> list[int]:
    graph = graph_of(model)
    assert graph is not None
    numbers = {id(tensor): one for tensor, one in zip(graph.inputs, inputs, strict=True)}
    for node in nodes_of(graph):
        sources = [numbers[id(tensor)] for tensor in node.input_tensors]
        operation = node.operation
        if graph_of(operation) is not None:
            if node.arguments.kwargs.get("training"):
                raise ValueError(f"model {operation.name!r} inside the model is called with training=True")
            results = _read(operation, sources, calls, number)
        else:
            results = [number() for _ in node.outputs]
            calls.append(Call(node, operation, sources, results))
        numbers.update(zip(map(id, node.outputs), results, strict=True))
    return [numbers[id(tensor)] for tensor in graph.outputs]


def graph_of(operation: Any) -> Any:
    """Returns the functional model of a model, also of a sequential one; `None` for anything else."""
    if isinstance(operation, keras.Sequential):
        return functional_of(operation)
    return operation if isinstance(operation, keras.Model) and isinstance(operation, keras.Function) else None


def nodes_of(graph: Any) -> Iterator[Any]:
    """Yields the nodes of such a model in the order of computation."""
    for _, nodes in sorted(nodes_by_depth(graph).items(), reverse=True):
        yield from (node for node in nodes if not node.is_input)


def _settle_places(calls: Sequence[Call], model: keras.Model, sides: Sequence[int]) -> None:
    """Sets the map size of each call, for images of these sides."""
    shape = list(model.inputs[0].shape)
    if None in shape[1:] and sides and len(shape) == 4:
        first = 2 if keras.config.image_data_format() == "channels_first" else 1
        shape[first : first + 2] = sides
    values = {IMAGE: keras.KerasTensor(shape, model.inputs[0].dtype)}
    open_sides = list(model.inputs[0].shape) != shape
    for call in calls:
        outputs = call.node.outputs
        if open_sides:
            given = {
                id(tensor): values[number] for tensor, number in zip(call.node.input_tensors, call.inputs, strict=True)
            }
            arguments, options = call.node.arguments.fill_in(given)
            outputs = keras.tree.flatten(call.node.operation.compute_output_spec(*arguments, **options))
            values.update(zip(call.outputs, outputs, strict=True))
        if len(outputs) == 1 and len(outputs[0].shape) == 4:
            _, *places = outputs[0].shape
            del places[0 if keras.config.image_data_format() == "channels_first" else -1]
            call.places = places


def _is_map(call: Call) -> bool:
    return call.places not in ((), [1, 1])


def _named(model: str, calls: Sequence[Call], stage: str) -> Call:
    """Returns the call whose map `stage` names."""
    stages = {part: call for part, call in ends_of_parts(calls).items() if _is_map(call)}
    if stage in stages:
        return stages[stage]
    maps = [call for call in calls if _is_map(call)]
    found = [call for call in maps if call.name == stage]
    if len(found) == 1:
        return found[0]
    if found:
        raise ValueError(f"stage={stage!r} is called {len(found)} times by model {model!r}; name a layer behind it")
    names = list(dict.fromkeys(call.name for call in reversed(maps)))
    parts = [part for part in PARTS if part in stages]
    wanted = f"one of {', '.join(parts)}, or a layer" if parts else "a layer"
    raise ValueError(
        f"stage={stage!r} must be {wanted} of model {model!r} that puts out a map, of more than one place; from the "
        f"last one they are {listed(names)}{near_name(stage, [*parts, *names])}"
    )


def _last_map(calls: Sequence[Call]) -> Call:
    """Returns the last call that everything passes through with a fine enough map, or else the last map."""
    maps, through = [], []
    later: set[int] = set()  # what the calls behind one take
    for call in reversed(calls):
        if _is_map(call):
            maps.append(call)
            if later <= set(call.outputs) and all(side is None or side >= FINE for side in call.places):
                through.append(call)
        later = (later - set(call.outputs)) | set(call.inputs)
    return [*through, *maps][0]
