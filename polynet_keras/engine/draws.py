"""Random numbers on many replicas: each draws its own, from one state that is equal on all."""

import keras
import tensorflow as tf

from polynet_keras.basics.keras_internals import every_layer

SPREAD = 0x9E3779B1
"""The distance between the seeds of two replicas: seeds counted from 0 do not reach those of the next replica."""


class ReplicaDraws:
    """The states of a model's `keras.random.SeedGenerator`s for each replica.

    A layer whose property `draws_agree` is true draws the same numbers on all replicas, for example for the whole
    batch. The first replica draws the same numbers as a single one would. (Draws without a generator fail under
    TensorFlow's strategies: Keras keeps its own generator by thread, and each replica has a thread.)

    Args:
        model: a built model whose layers draw.
    """

    def __init__(self, model: keras.Model):
        agreeing = {
            id(variable)
            for layer in every_layer(model)
            if getattr(layer, "draws_agree", False)
            for variable in layer.variables
        }
        weights = {id(variable) for variable in model.weights}
        self.states = [variable for variable in model.variables if id(variable) not in weights]
        self._spreads = [0 if id(state) in agreeing else SPREAD for state in self.states]

    def of_replica(self, replica: tf.Tensor) -> list[tuple[keras.Variable, tf.Tensor]]:
        """Returns (state, its value here) for a `keras.StatelessScope`; `replica` is the replica's number."""
        offsets = self._offsets(replica)
        return [(state, state.value + offset) for state, offset in zip(self.states, offsets, strict=True)]

    def settled(self, scope: keras.StatelessScope, replica: tf.Tensor) -> list[tf.Tensor]:
        """Returns the states after the draws in a scope, which are the same on all replicas."""
        offsets = self._offsets(replica)
        return [scope.get_current_value(state) - offset for state, offset in zip(self.states, offsets, strict=True)]

    def _offsets(self, replica: tf.Tensor) -> list[tf.Tensor]:
        # A state is (seed, number of draws).
        return [
            tf.stack([tf.cast(replica, state.dtype) * spread, tf.zeros((), state.dtype)])
            for state, spread in zip(self.states, self._spreads, strict=True)
        ]
