"""A prediction step on many replicas: every worker gets the outputs of the whole batch, in its order."""

import keras
import tensorflow as tf

from polynet_keras.cluster.patience import waiting
from polynet_keras.cluster.workers import worker_count
from polynet_keras.engine import stand_in
from polynet_keras.layers.synchronized_moments import idle_part


class PredictionStep:
    """A prediction step as Keras calls it: takes a list of distributed batches, and returns all their outputs."""

    def __init__(self, model: keras.Model):
        self._model = model
        self._strategy = model.distribute_strategy
        self._function = model.compiled_function(self._of_batch)

    def __call__(self, batches: list):
        with waiting(self._strategy, len(batches)):
            outputs = [self._function(batch, keras.tree.map_structure(_specification, batch)) for batch in batches]
        if len(outputs) == 1:
            return outputs[0]
        flat = [keras.tree.flatten(output) for output in outputs]
        return keras.tree.pack_sequence_as(
            outputs[0], [tf.concat(leaves, axis=0) for leaves in zip(*flat, strict=True)]
        )

    def _of_batch(self, batch):
        outputs = self._strategy.run(self._of_replica, args=(batch,))
        return keras.tree.map_structure(self._gathered, outputs)

    def _of_replica(self, part):
        rows, added = stand_in.filled(part)
        with idle_part(added):
            return stand_in.emptied(self._model.predict_step(rows), added)

    def _gathered(self, values) -> tf.Tensor:
        """Returns the replicas' outputs one after the other, in the order in which a dataset's batch is distributed."""
        if self._strategy.num_replicas_in_sync == 1:
            return self._strategy.experimental_local_results(values)[0]
        local = self._strategy.experimental_local_results(values)
        workers = worker_count(self._strategy)
        if workers == 1:
            return tf.concat(local, axis=0)
        gathered = self._strategy.gather(values, axis=0)
        if len(local) == 1:
            return gathered
        # A batch's parts go to the workers in turn: to the first replica of each, then to the second of each.
        counts = self._strategy.gather(self._strategy.run(lambda value: tf.shape(value)[:1], args=(values,)), axis=0)
        parts = tf.split(gathered, counts, num=self._strategy.num_replicas_in_sync)
        return tf.concat([part for number in range(len(local)) for part in parts[number :: len(local)]], axis=0)


def _specification(value):
    if isinstance(value, tf.Tensor):
        return tf.TensorSpec((None, *value.shape[1:]) if value.shape.rank else (), value.dtype)
    return None if value is None else tf.type_spec_from_value(value)
