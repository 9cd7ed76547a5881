"""Never run on a TPU, since none was available: a step as one XLA program, with the update."""

import tensorflow as tf

from polynet_keras.basics.keras_internals import gradients_are_summed
from polynet_keras.engine.replicated_step import ReplicatedStep


class TpuStep(ReplicatedStep):
    """Keras's own training or test step under a `TPUStrategy`."""

    def __call__(self, data, interrupted: tf.Tensor) -> tuple[dict, tf.Tensor]:
        votes = self._strategy.run(self.whole_step, args=(data, interrupted))
        return self._model.get_metrics_result(), self._first(votes)

    def whole_step(self, data, interrupted: tf.Tensor) -> tf.Tensor:
        """Sums and updates in a replica's context: the part that XLA compiles. Returns the votes."""
        optimizer = getattr(self._model.optimizer, "inner_optimizer", self._model.optimizer)
        with gradients_are_summed(optimizer):
            return self._update(self._summed(data, interrupted))
