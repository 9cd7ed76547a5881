"""Keras's batch normalization, computed by TensorFlow's fused kernel where there is one."""

import keras


@keras.saving.register_keras_serializable(package="polynet_keras")
class BatchNormalization(keras.layers.BatchNormalization):
    """`keras.layers.BatchNormalization`, faster and smaller on TensorFlow.

    Same arguments, config, variables, moving-average rule and numerics (1e-5): weights move between the two freely.
    Keras 3 computes moments and then normalizes, each from element-wise operations that keep their results for
    the backward pass; this layer calls `FusedBatchNormV3`, one operation in each direction. It does so on the
    TensorFlow backend for 4-D inputs of float32, float16 or bfloat16, normalized over the last axis (or, with a
    GPU visible to TensorFlow, over axis 1), without mask, `synchronized` or `renorm`; otherwise it is Keras's layer.

    Differences that remain: with a float16 or bfloat16 compute dtype the input is not cast up first (the kernel
    accumulates in float32 itself), and a batch without examples, such as a replica gets at the end of an uneven
    epoch, leaves the moving statistics as they are where Keras's layer fills them with NaN.

    Source: Ioffe and Szegedy, 2015; the arithmetic is `keras.layers.BatchNormalization`'s.
    """

    def call(self, inputs, training=None, mask=None):
        if mask is not None or not self._has_fused_kernel(inputs):
            return super().call(inputs, training=training, mask=mask)
        import tensorflow as tf

        moving_mean = tf.convert_to_tensor(self.moving_mean)
        moving_variance = tf.convert_to_tensor(self.moving_variance)
        gamma = tf.convert_to_tensor(self.gamma) if self.scale else tf.ones_like(moving_mean)
        beta = tf.convert_to_tensor(self.beta) if self.center else tf.zeros_like(moving_mean)
        training = bool(training and self.trainable)
        if training:
            count, not_empty = _values_per_channel(inputs, inputs.shape[self.axis])
            if not_empty is not True:
                gamma, beta = _without_gradient_unless(not_empty, gamma, beta)
        outputs, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
            x=inputs,
            scale=gamma,
            offset=beta,
            # In training the kernel computes the statistics and takes these two empty.
            mean=tf.zeros([0]) if training else moving_mean,
            variance=tf.zeros([0]) if training else moving_variance,
            epsilon=self.epsilon,
            data_format="NHWC" if self._axis_is_last(inputs) else "NCHW",
            is_training=training,
        )
        if training:
            # The kernel returns the unbiased variance (over count - 1), Keras's moving average is of the biased one.
            variance = variance * ((count - 1.0) / count)
            for moving, old, new in (
                (self.moving_mean, moving_mean, mean),
                (self.moving_variance, moving_variance, variance),
            ):
                updated = old + (new - old) * (1.0 - self.momentum)
                # Without examples the kernel's statistics are NaN: what was learned so far stays.
                moving.assign(updated if not_empty is True else tf.where(not_empty, updated, old))
        return tf.cast(outputs, self.compute_dtype)

    def _has_fused_kernel(self, inputs) -> bool:
        if keras.backend.backend() != "tensorflow" or self.synchronized or len(inputs.shape) != 4:
            return False
        if getattr(self, "renorm", False):  # Keras 3.12 has none
            return False
        if keras.backend.standardize_dtype(inputs.dtype) not in ("float32", "float16", "bfloat16"):
            return False
        if self.variable_dtype != "float32":
            return False
        return self._axis_is_last(inputs) or (self.axis in (1, -3) and _gpu_is_visible())

    def _axis_is_last(self, inputs) -> bool:
        return self.axis in (-1, len(inputs.shape) - 1)


def _values_per_channel(inputs, channels: int):
    """(how many values each channel has, whether there are any): Python numbers where the shape is known."""
    import tensorflow as tf

    if inputs.shape.num_elements():  # neither unknown nor empty
        return inputs.shape.num_elements() // channels, True
    count = tf.cast(tf.size(inputs) // channels, "float32")
    return tf.maximum(count, 1.0), count > 0.0


def _without_gradient_unless(condition, *tensors):
    """The tensors; back through them goes the gradient, or zeros where the (scalar) condition is false.

    Of an empty batch, the kernel that XLA compiles gives NaN as the gradient of gamma and beta.
    """
    import tensorflow as tf

    @tf.custom_gradient
    def identity(*values):
        def backward(*upstream):
            return [tf.where(condition, gradient, tf.zeros_like(gradient)) for gradient in upstream]

        return [tf.identity(value) for value in values], backward

    return identity(*tensors)


def _gpu_is_visible() -> bool:
    import tensorflow as tf

    return bool(tf.config.list_logical_devices("GPU"))
