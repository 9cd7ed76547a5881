"""Sums gradients over the replicas in float16: half the bytes, with a bound on the error.

The gradient of each variable is multiplied by a power of two, the same on all replicas, and chosen so that no sum can
overflow: the replicas first sum their largest magnitudes m_r of each variable's gradient. This sum bounds every element
of Σ g_r. If R replicas are added one after the other, each element of the computed sum has an error of at most

    R · 2⁻¹¹ · Σ |g_r|  +  R · 2⁻³⁸ · Σ m_r

The first term is float16's rounding in R casts and R - 1 consecutive sums; mixed-precision training rounds the same
gradients once more at each layer. The second term is the loss of elements under 2⁻²⁷ of Σ m_r; the smallest become
zero. Values that are not finite stay so. No state is kept from step to step, so a resumed training gets the same bits.
For this reason there is no error feedback (Seide et al. 2014, 1-bit SGD), which keeps a residual on each replica. The
magnitudes are sent first, so no gradient is sent before a replica has computed all its gradients.
"""

import tensorflow as tf

_BITS, _BIAS = 23, 127  # float32: the bits of its fraction, and the exponent of 1
_EXPONENT = 13
"""The sums of magnitudes stay under 2¹⁴: no order of summation and no rounding brings them to float16's limit, 2¹⁶."""


def magnitudes(gradients: list[tf.Tensor]) -> tf.Tensor:
    """Returns the largest magnitude of each gradient, to sum over the replicas: float32, (gradients,)."""
    return tf.stack([tf.cast(tf.reduce_max(tf.abs(g)), "float32") for g in gradients])


def compressed(gradients: list[tf.Tensor], totals: tf.Tensor) -> list[tf.Tensor]:
    """Returns float16 gradients to sum over the replicas; `totals` are the sums of the `magnitudes`."""
    scales = _powers(_shift(totals))
    return [tf.cast(tf.cast(g, "float32") * scales[n], "float16") for n, g in enumerate(gradients)]


def expanded(sums: list[tf.Tensor], totals: tf.Tensor, dtypes: list[tf.DType]) -> list[tf.Tensor]:
    """Converts the sums of `compressed` gradients to sums of the gradients, with these dtypes."""
    scales = _powers(-_shift(totals))
    return [
        tf.cast(tf.cast(s, "float32") * scales[n], dtype) for n, (s, dtype) in enumerate(zip(sums, dtypes, strict=True))
    ]


def _shift(totals: tf.Tensor) -> tf.Tensor:
    """Returns the exponents of the powers of two that scale positive float32 numbers to 2¹³ to 2¹⁴: int32."""
    exponents = tf.bitwise.right_shift(tf.bitcast(totals, tf.int32), _BITS) - _BIAS
    return tf.clip_by_value(_EXPONENT - exponents, 1 - _BIAS, _BIAS - 1)  # both 2ⁿ and 2⁻ⁿ are normal numbers


def _powers(exponents: tf.Tensor) -> tf.Tensor:
    """Returns exact powers of two, float32; `tf.pow` does not promise exact ones."""
    return tf.bitcast(tf.bitwise.left_shift(exponents + _BIAS, _BITS), tf.float32)
