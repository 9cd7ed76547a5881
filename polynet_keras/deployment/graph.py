"""A network as a graph of few kinds of nodes, read from a Keras model, for rewriting by fusing.

Every convolution is `scale · conv(x, kernel) + offset`, with one scale and one offset per channel, and an optional
ReLU. Batch normalizations, residual factors and biases go into scale and offset; at the end, `deployment.emit` decides
whether these go into the kernel. A kernel is a separate object, since several convolutions may share it.
"""

from collections import Counter
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import KerasTensor

from polynet_keras.basics.keras_internals import functional_of, nodes_by_depth
from polynet_keras.layers.batch_normalization import BatchNormalization
from polynet_keras.layers.channel_split import ChannelSplit
from polynet_keras.layers.stochastic_residual_scaling import StochasticResidualScaling

IDENTITIES = (
    keras.layers.Dropout,
    keras.layers.SpatialDropout2D,
    keras.layers.GaussianDropout,
    keras.layers.GaussianNoise,
)
"""Layers that do nothing in inference."""

KEPT = (
    keras.layers.Activation,
    keras.layers.AveragePooling2D,
    keras.layers.Dense,
    keras.layers.Flatten,
    keras.layers.GlobalAveragePooling2D,
    keras.layers.GlobalMaxPooling2D,
    keras.layers.MaxPooling2D,
    keras.layers.Normalization,
    keras.layers.Rescaling,
    keras.layers.Softmax,
)
"""Layers of one input that stay unchanged."""


@dataclass(eq=False, repr=False)
class Node:
    """A node that makes one tensor.

    Attributes:
        name: name of the layer that it becomes.
        inputs: the nodes of its input tensors.
    """

    name: str
    inputs: list["Node"]


@dataclass(eq=False, repr=False)
class Input(Node):
    tensor: KerasTensor


@dataclass(eq=False, repr=False)
class Kernel:
    """A convolution's kernel and its settings.

    Attributes:
        name: name of its layer.
        values: (height, width, in channels / groups, out channels), of the variable's dtype.
        settings: arguments of `keras.layers.Conv2D`, without those that `Conv` has.
    """

    name: str
    values: np.ndarray
    settings: dict[str, Any]

    @property
    def is_pointwise(self) -> bool:
        """Whether it is a 1×1 convolution of every pixel, over all channels."""
        return self.values.shape[:2] == (1, 1) and self.settings["strides"] == (1, 1) and self.settings["groups"] == 1

    @property
    def channel_axis(self) -> int:
        return -1 if self.settings["data_format"] == "channels_last" else 1


@dataclass(eq=False, repr=False)
class Conv(Node):
    kernel: Kernel
    scale: np.ndarray
    offset: np.ndarray
    relu: bool = False

    def folded_kernel(self) -> np.ndarray:
        """Returns the kernel with the scale of its outputs in it."""
        return (self.kernel.values * self.scale).astype(self.kernel.values.dtype)


@dataclass(eq=False, repr=False)
class BatchNorm(Node):
    layer: keras.layers.BatchNormalization


@dataclass(eq=False, repr=False)
class Relu(Node):
    dtype: keras.DTypePolicy


@dataclass(eq=False, repr=False)
class Sum(Node):
    """The first input plus the others times their factors; `broadcasts` if their shapes differ."""

    factors: list[float]
    dtype: keras.DTypePolicy
    broadcasts: bool = False


@dataclass(eq=False, repr=False)
class Concat(Node):
    axis: int
    dtype: keras.DTypePolicy


@dataclass(eq=False, repr=False)
class Slice(Node):
    """Channels `start` to `stop` of a merged convolution."""

    start: int
    stop: int


@dataclass(eq=False, repr=False)
class Kept(Node):
    """A layer that stays unchanged, with its weights."""

    layer: keras.Layer


@dataclass
class Graph:
    """A network.

    Attributes:
        input: its one input.
        outputs: its outputs.
    """

    input: Input
    outputs: list[Node]

    def nodes(self) -> list[Node]:
        """Returns the nodes that the outputs need, inputs first."""
        order: list[Node] = []
        seen: set[Node] = set()
        pending: list[tuple[Node, bool]] = [(node, False) for node in reversed(self.outputs)]
        while pending:  # the networks are deeper than Python's stack
            node, inputs_are_done = pending.pop()
            if inputs_are_done:
                order.append(node)
            elif node not in seen:
                seen.add(node)
                pending.append((node, True))
                pending += [(source, False) for source in reversed(node.inputs) if source not in seen]
        return order

    def consumers(self) -> dict[Node, list[Node | None]]:
        """Returns for each node the consumers of its tensor, once for each use; `None` is an output of the network."""
        found: dict[Node, list[Node | None]] = {node: [] for node in self.nodes()}
        for node in found:
            for source in node.inputs:
                found[source].append(node)
        for output in self.outputs:
            found[output].append(None)
        return found

    def replace(self, old: Node, new: Node) -> None:
        """Replaces `old` by `new` in all its consumers."""
        for node in self.nodes():
            if node is not new:
                node.inputs = [new if source is old else source for source in node.inputs]
        self.outputs = [new if output is old else output for output in self.outputs]

    def uses(self) -> Counter[Kernel]:
        """Returns the number of convolutions for each kernel."""
        return Counter(node.kernel for node in self.nodes() if isinstance(node, Conv))


def read(model: keras.Model) -> Graph:
    """Reads the graph of a functional model, with the current values of its weights.

    Raises:
        ValueError: the model is not functional or has several inputs, or the inference of a layer is unknown.
    """
    if len(getattr(model, "inputs", None) or ()) != 1 or not _graph_of(model):
        raise ValueError(f"model {getattr(model, 'name', model)!r} must be a functional Keras model with one input")
    image = model.inputs[0]
    source = Input(image.name, [], image)
    tensors: dict[int, Node] = {id(image): source}
    _read_into(model, tensors, {})
    return Graph(source, [tensors[id(tensor)] for tensor in model.outputs])


def _graph_of(model) -> dict | None:
    """Returns the nodes of a functional model by depth, as Keras itself runs them; `None` for other models."""
    if isinstance(model, keras.Sequential):
        model = functional_of(model)
    return nodes_by_depth(model) if isinstance(model, keras.Function) else None


def _read_into(model: keras.Model, tensors: dict[int, Node], kernels: dict[keras.Layer, Kernel]) -> None:
    by_depth = _graph_of(model)
    assert by_depth is not None
    for depth in sorted(by_depth, reverse=True):
        for call in by_depth[depth]:
            if call.is_input:
                continue
            if call.arguments.kwargs.get("training"):
                raise ValueError(f"layer {call.operation.name!r} is called with training=True; fusing is for inference")
            sources = [tensors[id(tensor)] for tensor in call.input_tensors]
            if isinstance(call.operation, keras.Model):
                nodes = _nested(call.operation, sources, kernels)
            else:
                nodes = [_node(call.operation, sources, kernels)]
                if isinstance(nodes[0], Sum):
                    nodes[0].broadcasts = len({tensor.shape for tensor in call.input_tensors}) > 1
            for tensor, node in zip(call.outputs, nodes, strict=True):
                tensors[id(tensor)] = node


def _nested(model: keras.Model, sources: list[Node], kernels: dict[keras.Layer, Kernel]) -> list[Node]:
    if not _graph_of(model) or len(model.inputs) != 1 or len(sources) != 1:
        raise ValueError(f"model {model.name!r} inside the model must be functional, with one input")
    tensors = {id(model.inputs[0]): sources[0]}
    _read_into(model, tensors, kernels)
    return [tensors[id(tensor)] for tensor in model.outputs]


def _node(layer: keras.Layer, sources: list[Node], kernels: dict[keras.Layer, Kernel]) -> Node:
    if getattr(layer, "quantization_mode", None):
        raise ValueError(f"layer {layer.name!r} is quantized already; fuse the float network")
    # Of these types and none derived from them: a subclass may compute something else.
    if type(layer) is StochasticResidualScaling:
        return Sum(layer.name, sources, _factors(layer), layer.dtype_policy)
    if type(layer) is keras.layers.Add:
        return Sum(layer.name, sources, [1.0] * (len(sources) - 1), layer.dtype_policy)
    if type(layer) is keras.layers.Concatenate:
        return Concat(layer.name, sources, layer.axis, layer.dtype_policy)
    if len(sources) != 1:
        raise ValueError(f"layer {layer.name!r} is called with {len(sources)} tensors, as with a mask; expected one")
    if type(layer) is keras.layers.Conv2D:
        return _convolution(layer, sources, kernels)
    if type(layer) in (keras.layers.BatchNormalization, BatchNormalization):
        return BatchNorm(layer.name, sources, layer)
    if _is_relu(layer):
        return Relu(layer.name, sources, layer.dtype_policy)
    if type(layer) in IDENTITIES:
        return sources[0]
    if type(layer) in KEPT:
        return Kept(layer.name, sources, layer)
    if type(layer) is ChannelSplit:
        raise ValueError(f"layer {layer.name!r} is a result of fusing: the model is already fused")
    raise ValueError(
        f"layer {layer.name!r} of the type {type(layer).__name__} cannot be fused: its computation is unknown here. "
        "Known are the layers of PolyNet, and of heads: "
        f"{', '.join(sorted(known.__name__ for known in (*KEPT, *IDENTITIES)))}"
    )


def _convolution(layer: keras.layers.Conv2D, sources: list[Node], kernels: dict[keras.Layer, Kernel]) -> Conv:
    if layer.activation not in (keras.activations.linear, keras.activations.relu):
        name = getattr(layer.activation, "__name__", type(layer.activation).__name__)  # a layer, perhaps
        raise ValueError(f"layer {layer.name!r} has the activation {name}; expected relu or none")
    if layer not in kernels:
        names = ("strides", "padding", "data_format", "dilation_rate", "groups")
        settings = {name: getattr(layer, name) for name in names}
        settings["dtype"] = layer.dtype_policy
        kernels[layer] = Kernel(layer.name, keras.ops.convert_to_numpy(layer.kernel), settings)
    bias = keras.ops.convert_to_numpy(layer.bias) if layer.use_bias else np.zeros(layer.filters)
    relu = layer.activation is keras.activations.relu
    return Conv(layer.name, sources, kernels[layer], np.ones(layer.filters), bias.astype("float64"), relu)


def _factors(layer: StochasticResidualScaling) -> list[float]:
    """Returns the factor of each path in inference."""
    scale, survival = (
        keras.ops.convert_to_numpy(v).astype("float64") for v in (layer.scale, layer.survival_probability)
    )
    return [float(factor) for factor in (scale * survival.clip(0, 1) if layer.rescale == "inference" else scale)]


def _is_relu(layer: keras.Layer) -> bool:
    if type(layer) is keras.layers.ReLU:
        return layer.max_value is None and not layer.negative_slope and not layer.threshold
    return type(layer) is keras.layers.Activation and layer.activation is keras.activations.relu
