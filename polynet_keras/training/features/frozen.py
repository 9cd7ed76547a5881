"""The frozen part of a network, from the images to the input of the first trained layer."""

import hashlib

import keras
import numpy as np

from polynet_keras.engine.network import Network
from polynet_keras.models.parts import PARTS, part_of


def end_of_frozen(model: keras.Model, through: str) -> keras.KerasTensor:
    """Returns the frozen part's symbolic output; through stage C it is pooled, as the pooling has nothing to train.

    Args:
        model: model of `PolyNet`, with the top.
        through: the last frozen part, as in `freeze`.
    """
    if through == PARTS[-2]:
        return model.get_layer(PARTS[-1]).input
    return [layer for layer in model.layers if part_of(layer.name) == through][-1].output


def frozen_part(model: keras.Model, through: str) -> Network:
    """Returns the network from the images to `end_of_frozen`, with the layers and weights of the model.

    Made outside of a strategy's scope, it computes in this process alone, on one device.
    """
    return Network(model.input, end_of_frozen(model, through))


def weights_hash(model: keras.Model) -> str:
    """Returns the SHA-256 of all weights.

    It covers moving statistics and residual factors, but not the states of random layers.
    """
    digest = hashlib.sha256()
    for weight in model.weights:
        digest.update(np.array(keras.ops.convert_to_tensor(weight)).tobytes())
    return digest.hexdigest()
