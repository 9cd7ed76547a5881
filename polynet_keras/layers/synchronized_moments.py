"""Batch normalization by the moments of the global batch: one collective per layer forward, one backward.

For the TensorFlow backend only. Each replica of a distribution strategy holds a part of the global batch. Its outputs
and gradients are those of a single worker with the whole batch.
"""

import contextlib
import threading
from collections.abc import Iterator

import tensorflow as tf

_replica = threading.local()
"""State of each replica, which has its own thread; `idle` is 1 if this replica's part is a stand-in."""


@contextlib.contextmanager
def idle_part(idle: tf.Tensor | None) -> Iterator[None]:
    """If `idle` is 1 (a scalar, 0 or 1; None means 0), this replica computes too, but its part counts for nothing."""
    _replica.idle = idle
    try:
        yield
    finally:
        _replica.idle = None


def replica_count() -> int:
    """Returns the number of replicas that compute together: 1 outside of `strategy.run`, or without a strategy."""
    context = tf.distribute.get_replica_context()
    return 1 if context is None else context.num_replicas_in_sync


def normalize(
    x: tf.Tensor, gamma: tf.Tensor, beta: tf.Tensor, axis: int, epsilon: float
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor]:
    """Returns `gamma · (x - mean) / sqrt(variance + epsilon) + beta`, with mean and variance over all replicas' parts.

    All replicas must call it, including those with an empty part, and the backward pass must run on all or none. Each
    pass is one all-reduce: (replicas, 2C + 1) numbers forward, 2C backward. There is none outside of `strategy.run`, or
    with one replica.

    Args:
        x: (..., C, ...), floats; this replica's part. The parts may differ in their number of examples.
        gamma, beta: (C,).
        axis: axis of the channels; may be negative.
        epsilon: added to the variance.

    Returns:
        The normalized part, of `x`'s shape and dtype; the global mean and biased variance, (C,); and the number of
        values per channel in the global batch, a scalar, 0 if all parts are empty. The last three are float32 (float64
        for float64 inputs) and carry no gradient.

    The gradient of `x` is exact if the loss to differentiate is the sum of the replicas' losses. If a replica's loss
    is a mean over its part, weight it by the part's size before the backward pass. The gradients of `gamma` and `beta`
    are this replica's share: their sum over the replicas is the global batch's. There is no second-order gradient.

    Source: Ioffe and Szegedy, 2015; the moments of the parts are combined as in Chan, Golub and LeVeque, "Updating
    Formulae and a Pairwise Algorithm for Computing Sample Variances", 1979, which avoids differences of large squares.
    """
    dtype = tf.float64 if x.dtype == tf.float64 else tf.float32
    context = tf.distribute.get_replica_context()
    idle = getattr(_replica, "idle", None)
    part = tf.ones((), dtype) if idle is None else tf.cast(1 - idle, dtype)
    axes = [number for number in range(len(x.shape)) if number != axis % len(x.shape)]

    def per_channel(values):
        return tf.reshape(values, [1 if number in axes else -1 for number in range(len(x.shape))])

    @tf.custom_gradient
    def normalized(x, gamma, beta):
        mean, variance, count = _global_moments(context, tf.cast(x, dtype), part, axes, per_channel)
        inverse = tf.math.rsqrt(variance + epsilon)
        # The mean is subtracted first: folded into the offset, a large one would leave its rounding errors behind.
        centred = tf.cast(x, dtype) - per_channel(mean)
        y = tf.cast(centred * per_channel(gamma * inverse) + per_channel(beta), x.dtype)

        def gradient(dy, *_):
            # Of all tensors as large as `x`, only `x` itself is kept for this.
            dy = tf.cast(dy, dtype)
            centred = tf.cast(x, dtype) - per_channel(mean)
            dbeta = tf.reduce_sum(dy, axes)
            dgamma = tf.reduce_sum(dy * centred, axes) * inverse
            share = tf.math.multiply_no_nan(tf.concat([dbeta, dgamma], axis=0), part)
            dbeta, dgamma = tf.split(share, 2)
            sums = _sum_over_replicas(context, share)
            mean_dbeta, mean_dgamma = tf.split(tf.math.divide_no_nan(sums, count), 2)
            # An idle part has no gradient, whatever the moments of the others are.
            scale = gamma * inverse * part
            dx = (dy - per_channel(mean_dbeta) - centred * per_channel(mean_dgamma * inverse)) * per_channel(scale)
            return tf.cast(dx, x.dtype), dgamma, dbeta

        return (y, mean, variance, count), gradient

    y, *moments = normalized(x, tf.cast(gamma, dtype), tf.cast(beta, dtype))
    return y, *map(tf.stop_gradient, moments)


def _global_moments(
    context, x: tf.Tensor, part: tf.Tensor, axes: list[int], per_channel
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Returns (mean, biased variance, values per channel) of all replicas' parts; zeros if all are empty.

    `part` is 1, or 0 where this replica's part is idle.
    """
    size = tf.reduce_prod(tf.gather(tf.shape(x), axes))
    count = tf.cast(size, x.dtype) * part
    mean = tf.math.divide_no_nan(tf.reduce_sum(x, axes), count)
    squares = tf.reduce_sum(tf.math.squared_difference(x, per_channel(mean)), axes)
    if context is None or context.num_replicas_in_sync == 1:
        return mean, tf.math.divide_no_nan(squares, count), count
    # A sum of rows that are zero but for one replica's is a gather, in one collective: `all_gather` takes two, since
    # it has the replicas tell each other their shapes first.
    row = tf.concat([[count], mean, tf.math.multiply_no_nan(squares, part)], axis=0)
    place = tf.one_hot(context.replica_id_in_sync_group, context.num_replicas_in_sync, dtype=x.dtype)
    rows = _sum_over_replicas(context, place[:, tf.newaxis] * row)
    channels = mean.shape[0]
    counts, means, squares = tf.split(rows, [1, channels, channels], axis=1)
    count = tf.reduce_sum(counts)
    mean = tf.math.divide_no_nan(tf.reduce_sum(counts * means, axis=0), count)
    squares = tf.reduce_sum(squares + counts * tf.math.squared_difference(means, mean), axis=0)
    return mean, tf.math.divide_no_nan(squares, count), count


def _sum_over_replicas(context, values: tf.Tensor) -> tf.Tensor:
    if context is None or context.num_replicas_in_sync == 1:
        return values
    return context.all_reduce(tf.distribute.ReduceOp.SUM, values)
