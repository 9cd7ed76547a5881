"""A model whose outputs are saturated, for every loss of Keras's that takes logits or probabilities.

Of a probability that is clipped to [1e-7, 1 - 1e-7] a loss has no gradient: Keras computes with the logits, where it
finds them.
"""

import inspect

import keras
import numpy as np
import tensorflow as tf

CLASSES = 3
LOSSES = {
    name: loss
    for name, loss in vars(keras.losses).items()
    if inspect.isclass(loss) and "from_logits" in inspect.signature(loss).parameters
}


@keras.saving.register_keras_serializable(package="polynet_keras_tests")
class Operation(keras.layers.Layer):
    """An activation as TensorFlow's own operation: Keras finds the logits by its type."""

    def __init__(self, operation, **kwargs):
        super().__init__(dtype="float32", **kwargs)
        self.operation = operation

    def call(self, x):
        return getattr(tf.nn, self.operation)(x)


def model_of(model_class):
    """Outputs for each loss: probabilities of Keras's activation and of TensorFlow's operation, and logits.

    Returns:
        (model, losses, targets of 8 examples)
    """
    rng = np.random.default_rng(0)
    inputs = keras.Input((4,), name="x")
    outputs, losses, targets = {}, {}, {}
    for name, loss in LOSSES.items():
        activation, units = ("sigmoid", 1) if "Binary" in name else ("softmax", CLASSES)
        numbers = rng.integers(0, max(2, units), 8)
        target = numbers if "Sparse" in name else np.eye(units)[numbers] if units > 1 else numbers[:, None]
        for kind in ("activation", "operation", "logits"):
            for from_logits in (False, True) if kind != "logits" else (True,):
                key = f"{name}_{kind}_{'logits' if from_logits else 'probabilities'}"
                dense = keras.layers.Dense(
                    units,
                    activation=activation if kind == "activation" else None,
                    kernel_initializer=keras.initializers.RandomNormal(stddev=40, seed=len(outputs)),
                    name=f"{key}_dense",
                )
                y = dense(inputs)
                if kind == "operation":
                    y = Operation(activation, name=key)(y)
                outputs[key] = y
                losses[key] = loss(from_logits=from_logits)
                targets[key] = target.astype("int32" if "Sparse" in name else "float32")
    return model_class(inputs, outputs), losses, targets


def examples():
    return np.random.default_rng(1).normal(size=(8, 4)).astype("float32")
