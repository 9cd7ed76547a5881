"""Keras's batch normalization on TensorFlow's fused kernel where there is one, with cheap synchronization."""

import keras

from polynet_keras.basics.keras_internals import every_layer


@keras.saving.register_keras_serializable(package="polynet_keras")
class BatchNormalization(keras.layers.BatchNormalization):
    """`keras.layers.BatchNormalization`, faster and smaller on TensorFlow.

    Arguments, config, variables, moving-average rule and numerics (to 1e-5) are Keras's: weights move between the two
    freely. Keras 3 computes moments and then normalizes, by element-wise operations that keep their results for the
    backward pass. This layer calls `FusedBatchNormV3`, one operation in each direction, on the TensorFlow backend for
    4-D inputs of float32, float16 or bfloat16. The input must be normalized over the last axis (or, with a GPU visible
    to TensorFlow, over axis 1), without mask or `renorm`; otherwise the layer is Keras's.

    With `synchronized=True`, training in `strategy.run` on several replicas normalizes by the mean and the variance of
    the global batch. Keras's layer needs three collectives forward and three backward. It computes the variance as the
    difference of two means, and loses it where the mean is large beside the deviation. This layer needs one collective
    in each direction and combines the replicas' moments (`layers.synchronized_moments`), whatever the sizes of their
    parts. Inference, a frozen layer and a single replica need none. With a mask (which Keras does not synchronize
    either) or `renorm`, the layer is Keras's. Other backends do not accept `synchronized=True`, and drop it when they
    load a saved layer.

    Two differences from Keras's layer remain. With a float16 or bfloat16 compute dtype, the layer does not cast the
    input up first (the kernel accumulates in float32 itself). A batch without examples leaves the moving statistics
    unchanged, where Keras's layer fills them with NaN; a replica can get such a batch at the end of an uneven epoch. (A
    synchronized layer uses the other replicas' examples.)

    Source: Ioffe and Szegedy, 2015; the arithmetic is `keras.layers.BatchNormalization`'s.

    Examples:
        >>> x = np.reshape([0.0, 2.0], (2, 1, 1, 1))
        >>> y = BatchNormalization()(x, training=True)
        >>> keras.ops.convert_to_numpy(y).ravel().round(2).tolist()
        [-1.0, 1.0]
    """

    @classmethod
    def from_config(cls, config):
        if keras.backend.backend() != "tensorflow" and config.get("synchronized"):
            config = {**config, "synchronized": False}
        return super().from_config(config)

    def call(self, inputs, training=None, mask=None):
        if keras.backend.backend() != "tensorflow" or mask is not None or self.renorm:
            return super().call(inputs, training=training, mask=mask)
        import tensorflow as tf

        inputs = tf.convert_to_tensor(inputs)  # `stateless_call` passes arrays unchanged
        training = bool(training and self.trainable)
        if training and self.synchronized and self._needs_global_moments(inputs):
            return self._normalize_globally(inputs)
        if not self._has_fused_kernel(inputs):
            return super().call(inputs, training=training)
        moving_mean, moving_variance, gamma, beta = self._values()
        not_empty = _not_empty(inputs) if training else True
        if not_empty is not True:
            # Of an empty batch, the kernel that XLA compiles gives NaN as the gradient of gamma and beta.
            gamma, beta = (tf.where(not_empty, value, tf.stop_gradient(value)) for value in (gamma, beta))
        bessel = _bessel(inputs, self.axis) if training and _gpu_is_visible() else None
        outputs, new_mean, new_variance, _, batch_variance, _ = tf.raw_ops.FusedBatchNormV3(
            x=inputs,
            scale=gamma,
            offset=beta,
            mean=moving_mean,
            variance=moving_variance if bessel is None else moving_variance / bessel,
            epsilon=self.epsilon,
            # In training the op moves both statistics by itself; of inference it takes no other value than 1.
            exponential_avg_factor=1.0 - self.momentum if training else 1.0,
            data_format="NHWC" if self._axis_is_last(inputs) else "NCHW",
            is_training=training,
        )
        if training:
            # The op's moving variance is of the unbiased one (over count - 1), Keras's of the biased, which the op
            # hands to its gradient; but on a GPU it hands on what cuDNN needs, and the factor between them is undone.
            if bessel is None:
                new_variance = moving_variance + (batch_variance - moving_variance) * (1.0 - self.momentum)
            else:
                new_variance = new_variance * bessel
            if not_empty is not True:
                # Without examples the kernel's statistics are NaN: what was learned so far stays.
                new_mean = tf.where(not_empty, new_mean, moving_mean)
                new_variance = tf.where(not_empty, new_variance, moving_variance)
            self.moving_mean.assign(new_mean)
            self.moving_variance.assign(new_variance)
        return tf.cast(outputs, self.compute_dtype)

    def _normalize_globally(self, inputs):
        import tensorflow as tf

        from polynet_keras.layers.synchronized_moments import normalize

        moving_mean, moving_variance, gamma, beta = self._values()
        outputs, mean, variance, count = normalize(inputs, gamma, beta, self.axis, self.epsilon)
        # If no replica has an example, what was learned so far stays.
        rate = tf.where(count > 0, tf.constant(1.0 - self.momentum, mean.dtype), 0.0)
        for variable, old, new in (
            (self.moving_mean, moving_mean, mean),
            (self.moving_variance, moving_variance, variance),
        ):
            old = tf.cast(old, new.dtype)
            variable.assign(old + (new - old) * rate)
        return tf.cast(outputs, self.compute_dtype)

    def _needs_global_moments(self, inputs) -> bool:
        """Whether the fused kernel is not enough: it sees only one replica's part."""
        from polynet_keras.layers.synchronized_moments import replica_count

        return replica_count() > 1 or not self._has_fused_kernel(inputs)

    def _values(self):
        """Returns moving mean and variance, gamma and beta, as tensors (C,)."""
        import tensorflow as tf

        moving_mean, moving_variance = _read(self.moving_mean), _read(self.moving_variance)
        gamma = _read(self.gamma) if self.scale else tf.ones_like(moving_mean)
        beta = _read(self.beta) if self.center else tf.zeros_like(moving_mean)
        return moving_mean, moving_variance, gamma, beta

    def _has_fused_kernel(self, inputs) -> bool:
        if len(inputs.shape) != 4:
            return False
        if keras.backend.standardize_dtype(inputs.dtype) not in ("float32", "float16", "bfloat16"):
            return False
        if self.variable_dtype != "float32":
            return False
        return self._axis_is_last(inputs) or (self.axis in (1, -3) and _gpu_is_visible())

    def _axis_is_last(self, inputs) -> bool:
        return self.axis in (-1, len(inputs.shape) - 1)


def set_normalization_momentum(model: keras.Model, momentum: float) -> None:
    """Sets the momentum of every batch normalization of a model, nested models included.

    Call it before the model is compiled: a training step that is compiled already keeps the old value.

    Args:
        model: a built model.
        momentum: share of the moving statistics that a step keeps, from 0 to below 1.
    """
    for layer in every_layer(model):
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = momentum


def synchronize_batch_normalization(model: keras.Model) -> None:
    """Sets `synchronized` on every batch normalization of a model, nested models included.

    Synchronization pays off where a replica gets few images. Variables and weights do not change; the model's config
    includes the setting, so that a saved model loads synchronized. You may call it at any time: it rebuilds a compiled
    training step. It also synchronizes layers of `keras.layers.BatchNormalization`, in Keras's way.

    Args:
        model: a model of any kind; it may be unbuilt if its constructor makes its layers.

    Raises:
        ValueError: the backend is not TensorFlow, or the model has no batch normalization.

    Examples:
        >>> model = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Conv2D(4, 3), BatchNormalization()])
        >>> synchronize_batch_normalization(model)
        >>> model.layers[-1].synchronized
        True
    """
    if keras.backend.backend() != "tensorflow":
        raise ValueError(
            f"batch normalization is synchronized on the TensorFlow backend only; this is {keras.backend.backend()!r}"
        )
    layers = [layer for layer in every_layer(model) if isinstance(layer, keras.layers.BatchNormalization)]
    if not layers:
        raise ValueError(f"model {model.name!r} has no batch normalization to synchronize")
    for layer in layers:
        layer.synchronized = True
    if model.train_function is not None:
        model.make_train_function(force=True)


def _read(variable: keras.Variable):
    """Returns the variable's tensor, without the overhead of `tf.convert_to_tensor`: there are thousands to read."""
    import tensorflow as tf

    # Inside a `keras.StatelessScope` the value is a tensor already.
    value = variable.value
    return value.value() if isinstance(value, tf.Variable) else value


def _not_empty(inputs):
    """Whether there are any values: a bool tensor if an empty batch is possible, else True.

    A dataset has no empty batches, but the replicas of a distribution strategy share a batch, and one may get no part.
    """
    import tensorflow as tf

    count = inputs.shape.num_elements()
    if count or (count is None and not tf.distribute.has_strategy()):
        return True
    return tf.size(inputs) > 0


def _bessel(inputs, axis: int):
    """Returns biased over unbiased variance, as in the op: a number, or a tensor if the shape is unknown."""
    import tensorflow as tf

    if inputs.shape.num_elements():
        count = inputs.shape.num_elements() // inputs.shape[axis]
        return max(count - 1, 1) / count
    count = tf.cast(tf.size(inputs) // inputs.shape[axis], "float32")
    return tf.maximum(count - 1.0, 1.0) / tf.maximum(count, 1.0)


def _gpu_is_visible() -> bool:
    import tensorflow as tf

    return bool(tf.config.list_logical_devices("GPU"))
