"""Conversion of a rewritten graph to a Keras model."""

import keras
import numpy as np
from keras import KerasTensor

from polynet_keras.basics.keras_internals import functional_of
from polynet_keras.deployment.graph import Concat, Conv, Graph, Input, Kept, Kernel, Node, Relu, Slice, Sum
from polynet_keras.engine.network import Network
from polynet_keras.layers.batch_normalization import BatchNormalization
from polynet_keras.layers.channel_split import ChannelSplit


def emit(graph: Graph, model: keras.Model, duplicating: bool) -> keras.Model:
    """Builds the model of a graph.

    Args:
        graph: the rewritten graph of `model`.
        model: gives the name and the structure of the outputs.
        duplicating: whether convolutions that share a kernel get copies of it, with their scales inside.
    """
    return _Emission(graph, duplicating).model(model)


class _Emission:
    def __init__(self, graph: Graph, duplicating: bool):
        self._graph = graph
        self._uses = graph.uses()
        self._duplicating = duplicating
        self._shared: dict[Kernel, keras.layers.Conv2D] = {}
        self._own_names = {node.name for node in graph.nodes()}
        self._names: set[str] = set()

    def model(self, original: keras.Model) -> keras.Model:
        tensors: dict[Node, KerasTensor] = {}
        slices: dict[Node, list[Slice]] = {}
        nodes = self._graph.nodes()
        for node in nodes:
            node.name = self._unique(node.name)
            if isinstance(node, Slice):
                slices.setdefault(node.inputs[0], []).append(node)
        for node in nodes:
            if isinstance(node, Slice):
                continue  # all slices of a convolution are made with it, by one operation
            tensors[node] = self._emitted(node, [tensors[source] for source in node.inputs])
            if node in slices:
                parts = sorted(slices[node], key=lambda part: part.start)
                assert isinstance(node, Conv)
                split = ChannelSplit(
                    [part.stop - part.start for part in parts],
                    node.kernel.channel_axis,
                    name=self._unique(f"{node.name}_split"),
                    dtype=node.kernel.settings["dtype"],
                )
                tensors.update(zip(parts, split(tensors[node]), strict=True))
        functional = functional_of(original) if isinstance(original, keras.Sequential) else original
        structure = functional.output
        outputs = keras.tree.pack_sequence_as(structure, [tensors[node] for node in self._graph.outputs])
        return Network(tensors[self._graph.input], outputs, name=original.name)

    def _emitted(self, node: Node, inputs: list[KerasTensor]) -> KerasTensor:
        match node:
            case Input():
                tensor = node.tensor
                return keras.Input(batch_shape=tensor.shape, dtype=tensor.dtype, name=node.name)
            case Conv():
                return self._convolution(node, inputs[0])
            case Sum():
                return keras.layers.Add(name=node.name, dtype=node.dtype)(inputs)
            case Relu():
                return keras.layers.ReLU(name=node.name, dtype=node.dtype)(inputs[0])
            case Concat():
                return keras.layers.Concatenate(node.axis, name=node.name, dtype=node.dtype)(inputs)
            case Kept():
                return _copied(node.layer, node.name, inputs[0])
        raise AssertionError(node)

    def _unique(self, name: str) -> str:
        """Returns the name, numbered from its second use on: layers are called twice, and nested models share names."""
        candidate, number = name, 1
        while candidate in self._names or (number > 1 and candidate in self._own_names):
            number += 1
            candidate = f"{name}_{number}"
        self._names.add(candidate)
        return candidate

    def _convolution(self, node: Conv, x: KerasTensor) -> KerasTensor:
        if not self._duplicating and self._uses[node.kernel] > 1:
            return self._shared_convolution(node, x)
        layer = _conv_layer(node.kernel, node.name, bias=True, relu=node.relu)
        y = layer(x)
        layer.kernel.assign(node.folded_kernel())
        layer.bias.assign(node.offset)
        return y

    def _shared_convolution(self, node: Conv, x: KerasTensor) -> KerasTensor:
        kernel = node.kernel
        if kernel not in self._shared:
            name = self._unique(f"{kernel.name}_shared")
            self._shared[kernel] = layer = _conv_layer(kernel, name, bias=False, relu=False)
            layer(x)
            layer.kernel.assign(kernel.values)
        # TensorFlow computes a batch normalization with its ReLU in one operation; a product and a sum would be three.
        affine = BatchNormalization(
            axis=kernel.channel_axis,
            name=self._unique(f"{node.name}_affine"),
            dtype=kernel.settings["dtype"],
            trainable=False,
        )
        y = affine(self._shared[kernel](x))
        affine.gamma.assign(node.scale)
        affine.beta.assign(node.offset)
        affine.moving_variance.assign(np.full(len(node.scale), 1 - affine.epsilon))
        if not node.relu:
            return y
        return keras.layers.ReLU(name=self._unique(f"{node.name}_relu"), dtype=kernel.settings["dtype"])(y)


def _conv_layer(kernel: Kernel, name: str, *, bias: bool, relu: bool) -> keras.layers.Conv2D:
    height, width, _, filters = kernel.values.shape
    return keras.layers.Conv2D(
        filters,
        (height, width),
        use_bias=bias,
        activation="relu" if relu else None,
        kernel_initializer="zeros",  # random numbers would take longer than all the rest
        name=name,
        **kernel.settings,
    )


def _copied(layer: keras.Layer, name: str, x: KerasTensor) -> KerasTensor:
    """Applies a layer of the same settings and weights."""
    try:
        copy = type(layer).from_config({**layer.get_config(), "name": name})
    except (TypeError, ValueError) as error:  # a function without a name that Keras could find it by
        reason = str(error).strip().splitlines()[0]
        raise ValueError(f"layer {layer.name!r} cannot be made again from its configuration: {reason}") from error
    y = copy(x)
    store: dict[str, np.ndarray] = {}
    layer.save_own_variables(store)
    copy.load_own_variables(store)  # unlike `set_weights`, makes a Normalization compute with the given values
    if isinstance(layer, keras.layers.BatchNormalization):
        copy.trainable = False
    return y
