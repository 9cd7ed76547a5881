"""A row of zeros to compute on, for a replica that a small last batch leaves without examples.

TensorFlow's convolutions on CPUs, oneDNN's, give an empty batch the shape of their input: what comes after them
fails, or ends the process. The row counts nowhere: not in the loss, the metrics, the outputs, or what
`layers.synchronized_moments` takes of the global batch. One exception: where losses are sums, what layers add to the
loss themselves (`add_loss`, activity regularizers) is counted once a replica, and that of the row too.
"""

import keras
import tensorflow as tf

from polynet_keras.basics.keras_internals import copy_notes


def filled(nest):
    """A nest of tensors, (batch, ...) each, whose batch is one row of zeros where it was empty.

    Returns:
        The nest, of the same tensors where there are examples, and how many rows were added: an int32 scalar, 0 or 1,
        or None where the shapes tell that there are examples.
    """
    leaves = [leaf for leaf in keras.tree.flatten(nest) if _may_be_empty(leaf)]
    if not leaves:
        return nest, None
    # In int32 and with these operations all of it stays on the CPU, where a GPU's `tf.pad` wants it.
    added = tf.maximum(1 - tf.shape(leaves[0])[0], 0)

    def with_row(leaf):
        if not _may_be_empty(leaf):
            return leaf
        # Without rows to add, `tf.pad` makes no copy.
        paddings = tf.concat([[[0, added]], tf.zeros((leaf.shape.rank - 1, 2), tf.int32)], axis=0)
        return tf.ensure_shape(tf.pad(leaf, paddings), (None, *leaf.shape[1:]))

    return keras.tree.map_structure(with_row, nest), added


def emptied(outputs, added: tf.Tensor | None):
    """A nest of what was computed of the rows, (batch, ...) each, without the one of zeros.

    What Keras finds by way of an output it finds by way of the shorter one: its mask, and the logits that losses and
    metrics compute with in place of probabilities, which are clipped to [1e-7, 1 - 1e-7] and have no gradient there.
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
    """The first rows. Where no attribute names the logits, Keras's losses ask which operation computed an output."""
    if not tf.is_symbolic_tensor(output) or output.op.type not in ("Softmax", "Sigmoid"):
        return output[:rows]
    operation = {"Softmax": tf.nn.softmax, "Sigmoid": tf.nn.sigmoid}[output.op.type]
    return operation(output.op.inputs[0][:rows])


def _may_be_empty(leaf) -> bool:
    return isinstance(leaf, tf.Tensor) and leaf.shape.rank not in (None, 0) and not leaf.shape[0]
