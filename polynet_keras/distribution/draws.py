"""Random numbers on many replicas: each draws its own, from one state that all hold alike."""

import keras
import tensorflow as tf
from keras.src.random.seed_generator import global_seed_generator  # it has no public name

SPREAD = 0x9E3779B1
"""Between the seeds of two replicas: far enough that seeds counted from 0 do not meet another replica's."""


class ReplicaDraws:
    """The states of a model's `keras.random.SeedGenerator`s, as each replica is to draw from them.

    Keras's generator for draws without one is among them. A layer whose property `draws_agree` is true draws the same
    on all replicas: for the whole batch, say. The first replica draws what a single one would.

    Args:
        model: built; its layers draw.
        replicas: how many there are.
    """

    def __init__(self, model: keras.Model, replicas: int):
        agreeing = {
            id(variable)
            for layer in model._flatten_layers()
            if getattr(layer, "draws_agree", False)
            for variable in layer.variables
        }
        weights = {id(variable) for variable in model.weights}
        own = [variable for variable in model.variables if id(variable) not in weights]
        self._shared = global_seed_generator().state
        self.states = [*own, self._shared]
        self._spreads = [0 if id(state) in agreeing else SPREAD for state in self.states]
        self._replicas = replicas

    def shared(self) -> tf.Tensor:
        """The state of Keras's own generator, read where no replica is: it may be on one device only."""
        return self._shared.value * 1

    def of_replica(self, replica: tf.Tensor, shared: tf.Tensor) -> list[tuple[keras.Variable, tf.Tensor]]:
        """(state, its value here), for a `keras.StatelessScope`.

        Args:
            replica: the replica's number.
            shared: what `shared` returned.
        """
        values = [*(state.value for state in self.states[:-1]), shared]
        offsets = self._offsets(replica)
        return [(state, v + offset) for state, v, offset in zip(self.states, values, offsets, strict=True)]

    def settled(self, scope: keras.StatelessScope, replica: tf.Tensor) -> list[tf.Tensor]:
        """The states after the draws in a scope: the same on all replicas."""
        offsets = self._offsets(replica)
        *own, shared = [scope.get_current_value(state) for state in self.states]
        settled = [state - offset for state, offset in zip(own, offsets[:-1], strict=True)]
        if self._replicas > 1:
            # Keras's own generator does not count: it makes each of its two numbers from itself, and the second has no
            # offset.
            shared = tf.stack([shared[1], shared[1]])
        return [*settled, shared]

    def _offsets(self, replica: tf.Tensor) -> list[tf.Tensor]:
        # A state is (seed, number of draws).
        return [
            tf.stack([tf.cast(replica, state.dtype) * spread, tf.zeros((), state.dtype)])
            for state, spread in zip(self.states, self._spreads, strict=True)
        ]
