"""The kind of a Keras classifier's outputs: logits, or the probabilities that a softmax makes of them."""

from collections.abc import Iterator

import keras
import numpy as np
from keras import layers, ops

from polynet_keras.basics.keras_internals import nodes_by_depth
from polynet_keras.engine.network import Network

PASSING = (layers.InputLayer, layers.Reshape, layers.Flatten, layers.Dropout, layers.GlobalAveragePooling2D)
"""Layers that keep logits logits, and probabilities probabilities."""
ACTIVATED = (layers.Dense, layers.Conv2D, layers.Activation)
SMALLEST = float(np.finfo("float32").tiny)
"""Smallest probability for logarithms; it replaces 0."""


def gives_logits(model: keras.Model) -> bool:
    """Whether a model's outputs are logits, according to its last activation; otherwise they are probabilities.

    Raises:
        ValueError: the activation gives neither.
    """
    return softmax_of(model) is None


def softmax_of(model: keras.Model) -> keras.Operation | None:
    """Returns the softmax that makes a model's probabilities, also in a nested model; `None` if its outputs are logits.

    Raises:
        ValueError: the model ends in another activation.
    """
    for last in _from_the_end(model):
        if type(last).__name__ == "Softmax":  # the layer, or what `keras.ops.softmax` leaves, whose class is not public
            return last
        activation = getattr(last, "activation", None)
        if isinstance(last, ACTIVATED) and activation is keras.activations.softmax:
            return last
        is_linear = activation is keras.activations.linear
        if isinstance(last, PASSING) or (isinstance(last, layers.Activation) and is_linear):
            continue
        if isinstance(last, ACTIVATED) and is_linear:
            return None
        break
    name = type(last).__name__
    if isinstance(last, ACTIVATED):
        name += f" with the activation {getattr(activation, '__name__', activation)}"
    raise ValueError(
        f"the model {model.name!r} ends in {name}; expected a softmax, or a Dense layer without activation. If these "
        "are logits, save keras.Sequential([model, keras.layers.Softmax()]) in its place"
    )


def _from_the_end(model: keras.Model) -> Iterator[keras.Operation]:
    """Yields a model's operations, last first, also those of nested models; a model without a graph yields itself."""
    if isinstance(model, keras.Sequential):
        operations: list[keras.Operation] = model.layers[::-1]
    elif isinstance(model, keras.Function):
        # `model.layers` has no operations, such as a division of the logits, or `keras.ops.softmax`.
        operations = [node.operation for _, nodes in sorted(nodes_by_depth(model).items()) for node in nodes]
    else:
        yield model
        return
    for operation in operations:
        if isinstance(operation, keras.Model):
            yield from _from_the_end(operation)
        else:
            yield operation


def classifier_of(model: keras.Model) -> layers.Dense | layers.Conv2D | None:
    """Returns the last layer with a weight for each class, also in a nested model; `None` if there is none."""
    return next((last for last in _from_the_end(model) if isinstance(last, ACTIVATED[:2])), None)


def logits_model(model: keras.Model) -> keras.Model:
    """Returns the model without its last softmax, sharing the weights.

    A softmax that cannot be removed, such as one in a nested model, stays. Then the outputs are the logarithms of the
    probabilities, which differ from the logits by one number per image.

    Raises:
        ValueError: the model ends in another activation, from which logits cannot be computed.
    """
    if gives_logits(model):
        return model
    make = Network if isinstance(model, Network) else keras.Model
    last = model.layers[-1]
    if isinstance(last, (layers.Softmax, layers.Activation)):
        return make(_input_of(model), last.input)
    if isinstance(last, layers.Dense):
        return make(_input_of(model), without_activation(last)(last.input))
    return make(_input_of(model), ops.log(ops.maximum(ops.cast(model.outputs[0], "float32"), SMALLEST)))


def probability_model(model: keras.Model) -> keras.Model:
    """Returns the model with a softmax at its end, sharing the weights.

    Raises:
        ValueError: as `logits_model`.
    """
    return keras.Model(_input_of(model), layers.Softmax()(model.outputs[0])) if gives_logits(model) else model


def two_class_model(model: keras.Model) -> keras.Model:
    """Returns a model with one output, a sigmoid's or its logit, as a model of two classes, sharing the weights.

    The output belongs to the second class, as in Keras's `image_dataset_from_directory(label_mode="binary")`.

    Raises:
        ValueError: the model ends in neither.
    """
    last, sigmoid = model.layers[-1], keras.activations.sigmoid
    if isinstance(last, layers.Dense) and last.activation is sigmoid:
        logit = without_activation(last)(last.input)
    elif isinstance(last, layers.Activation) and last.activation is sigmoid:
        logit = last.input
    elif isinstance(last, layers.Dense) and last.activation is keras.activations.linear:
        logit = model.outputs[0]
    else:
        raise ValueError(
            f"the model {model.name!r} gives one number, and ends in {type(last).__name__}; expected a Dense layer or "
            "an Activation, with a sigmoid or linear"
        )
    half = logit / 2  # for both classes alike: `evaluation.explain` takes the gradient of either
    return keras.Model(_input_of(model), layers.Softmax()(ops.concatenate([-half, half], -1)))


def _input_of(model: keras.Model):
    """Returns a model's input, or the list of several. A list of one would have Keras warn on the PyTorch backend."""
    return model.inputs[0] if len(model.inputs) == 1 else model.inputs


def without_activation(last: layers.Dense | layers.Conv2D) -> layers.Dense | layers.Conv2D:
    """Returns a layer with the same weights and no activation."""
    head = type(last).from_config({**last.get_config(), "activation": "linear"})
    head.build(last.input.shape)
    head.set_weights(last.get_weights())
    return head
