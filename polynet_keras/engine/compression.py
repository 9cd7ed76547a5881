"""Gradients that are summed over the replicas in float16: half the bytes, and a bound on what is lost.

The gradient of each variable is multiplied by a power of two, the same on all replicas, and chosen so that no sum can
overflow: of each variable the replicas first sum the largest magnitudes m_r that they have, which bounds every element
of Σ g_r. With R replicas that are added one after the other, each element of the sum that is found is off by at most

    R · 2⁻¹¹ · Σ |g_r|  +  R · 2⁻³⁸ · Σ m_r

The first term is float16's rounding, of R casts and of R - 1 sums in a row; mixed-precision training rounds the same
gradients once more at each layer. The second is what elements lose that are under 2⁻²⁷ of Σ m_r; the smallest vanish.
What is not finite stays so. Nothing is remembered from step to step, so that a training goes on from a checkpoint to
the same bits: that is why there is no error feedback (Seide et al. 2014, 1-bit SGD), of which each replica keeps its
own residual. No gradient is sent before all of a replica's are there, for their magnitudes go first.
"""

import tensorflow as tf

_BITS, _BIAS = 23, 127  # of float32: its fraction, and the exponent of 1
_EXPONENT = 13
"""The sums of magnitudes are under 2¹⁴: no order of summing, and no rounding, brings them to float16's end at 2¹⁶."""


def magnitudes(gradients: list[tf.Tensor]) -> tf.Tensor:
    """float32, (gradients,): the largest magnitude in each, to be summed over the replicas."""
    return tf.stack([tf.cast(tf.reduce_max(tf.abs(g)), "float32") for g in gradients])


def compressed(gradients: list[tf.Tensor], totals: tf.Tensor) -> list[tf.Tensor]:
    """float16, to be summed over the replicas; `totals` are the sums of the `magnitudes`."""
    scales = _powers(_shift(totals))
    return [tf.cast(tf.cast(g, "float32") * scales[n], "float16") for n, g in enumerate(gradients)]


def expanded(sums: list[tf.Tensor], totals: tf.Tensor, dtypes: list[tf.DType]) -> list[tf.Tensor]:
    """The sums of what `compressed` gave, as sums of the gradients, which were of these dtypes."""
    scales = _powers(-_shift(totals))
    return [
        tf.cast(tf.cast(s, "float32") * scales[n], dtype) for n, (s, dtype) in enumerate(zip(sums, dtypes, strict=True))
    ]


def _shift(totals: tf.Tensor) -> tf.Tensor:
    """int32: the powers of two that bring positive float32 numbers to between 2¹³ and 2¹⁴."""
    exponents = tf.bitwise.right_shift(tf.bitcast(totals, tf.int32), _BITS) - _BIAS
    return tf.clip_by_value(_EXPONENT - exponents, 1 - _BIAS, _BIAS - 1)  # both 2ⁿ and 2⁻ⁿ are normal numbers


def _powers(exponents: tf.Tensor) -> tf.Tensor:
    """float32: powers of two, exactly, which `tf.pow` does not promise."""
    return tf.bitcast(tf.bitwise.left_shift(exponents + _BIAS, _BITS), tf.float32)
