"""The cost of a model of any package, counted from its layers."""

import itertools
import math

import keras

from polynet_keras.basics.keras_internals import nodes_by_depth

CONVOLUTIONS = (
    keras.layers.Conv2D,
    keras.layers.DepthwiseConv2D,
    keras.layers.SeparableConv2D,
    keras.layers.Dense,
)
"""Layers with as many multiply-accumulates per output position as their kernel has elements."""


def parameters_text(model: keras.Model) -> str:
    """Returns the numbers of parameters, total and trainable; moving statistics and frozen layers are not trainable."""
    trained = sum(math.prod(variable.shape) for variable in model.trainable_variables)
    return f"{model.count_params():,} parameters ({trained:,} trainable)"


def count_macs(model: keras.Model) -> int:
    """Counts the multiply-accumulates of one image through a functional model of any package, as `cost.StageCost` does.

    Convolutions (grouped, depthwise and separable ones too) and dense layers count as often as they are applied. The
    count is 0 (unknown) for a model that is not a graph of layers, or that takes images of any size.
    """
    macs = 0
    nodes = nodes_by_depth(model) if isinstance(model, keras.Function) else {}
    for node in itertools.chain.from_iterable(nodes.values()):
        layer, output = node.operation, node.output_tensors[0].shape
        if isinstance(layer, keras.Model):
            inner = count_macs(layer)
            if not inner and layer.count_params():  # not known: nor is the whole
                return 0
            macs += inner
        kernels = [
            getattr(layer, name)
            for name in ("kernel", "depthwise_kernel", "pointwise_kernel")
            if isinstance(layer, CONVOLUTIONS) and getattr(layer, name, None) is not None
        ]
        if not kernels:
            continue
        if None in output[1:]:
            return 0
        if isinstance(layer, keras.layers.Dense):
            positions = math.prod(output[1:-1])
        else:
            positions = math.prod(output[1:-1] if layer.data_format == "channels_last" else output[2:])
        macs += positions * sum(math.prod(kernel.shape) for kernel in kernels)
    return macs
