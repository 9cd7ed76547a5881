"""A row of zeros as a substitute, for a replica that a small last batch leaves without examples.

On CPUs TensorFlow's convolutions (oneDNN) give an empty batch the shape of their input: the next operation fails, or
crashes the process. The row counts nowhere: not in the loss, the metrics, the outputs, or the moments of the global
batch in `layers.synchronized_moments`. One exception: if losses are sums, losses that layers add themselves
(`add_loss`, activity regularizers) count once a replica, also for the row.
"""

import keras
import tensorflow as tf

from polynet_keras.basics.keras_internals import copy_notes


def filled(nest):
    """Replaces an empty batch by one row of zeros, in a nest of tensors, (batch, ...) each.

    Returns:
        The nest, with the same tensors if there are examples, and the number of added rows: an int32 scalar, 0 or 1, or
        None if the shapes show that there are examples.
    """
    leaves = [leaf for leaf in keras.tree.flatten(nest) if _may_be_empty(leaf)]
    if not leaves:
        return nest, None
    # In int32 and with these operations the number stays on the CPU, where a GPU's `tf.pad` expects it.
    added = tf.maximum(1 - tf.shape(leaves[0])[0], 0)

    def with_row(leaf):
        if not _may_be_empty(leaf):
            return leaf
        # Without rows to add, `tf.pad` makes no copy.
        paddings = tf.concat([[[0, added]], tf.zeros((leaf.shape.rank - 1, 2), tf.int32)], axis=0)
        return tf.ensure_shape(tf.pad(leaf, paddings), (None, *leaf.shape[1:]))

    return keras.tree.map_structure(with_row, nest), added


def emptied(outputs, added: tf.Tensor | None):
    """Removes the result of the row of zeros from a nest of results, (batch, ...) each.

    The shorter outputs keep what Keras attaches to an output: its mask, and the logits. Losses and metrics use the
    logits instead of the probabilities, which are clipped to [1e-7, 1 - 1e-7] and have no gradient at the limits.
    """
    if added is None:
        return outputs

    def without_row(output):
        if isinstance(output, tf.RaggedTensor):
            return output[: tf.cast(output.nrows(), tf.int32) * (1 - added)]
        if not isinstance(output, tf.Tensor) or output.shape.rank == 0:
            return output
        rows = tf.shape(output)[0] * (1 - added)
        kept = _of_same_operation(output, rows)
        copy_notes(output, kept, lambda note: note[:rows])
        return kept

    return keras.tree.map_structure(without_row, outputs)


def _of_same_operation(output: tf.Tensor, rows: tf.Tensor) -> tf.Tensor:
    """Returns the first rows. If no attribute has the logits, Keras's losses look at the operation of an output."""
    if not tf.is_symbolic_tensor(output) or output.op.type not in ("Softmax", "Sigmoid"):
        return output[:rows]
    operation = {"Softmax": tf.nn.softmax, "Sigmoid": tf.nn.sigmoid}[output.op.type]
    return operation(output.op.inputs[0][:rows])


def _may_be_empty(leaf) -> bool:
    return isinstance(leaf, tf.Tensor) and leaf.shape.rank not in (None, 0) and not leaf.shape[0]
