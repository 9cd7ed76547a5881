"""A loss that treats each class as a separate yes-or-no question: binary cross-entropy of a softmax's logits."""

import keras
from keras import ops

from polynet_keras.basics.keras_internals import logits_of


@keras.saving.register_keras_serializable(package="polynet_keras")
class ClasswiseBinaryCrossentropy(keras.losses.Loss):
    """The mean over the classes of the binary cross-entropy of each class's logit, for a model that ends in a softmax.

    The model keeps its softmax: the loss uses the logits in front of it. Let each logit z_k be that of an independent
    sigmoid. Then softmax(z) are the class probabilities given that an image shows exactly one class: P(k alone) is
    proportional to the odds exp(z_k).

    Probabilities do not determine the logits, which have one more degree of freedom. Where a model's outputs carry no
    logits, as on JAX and PyTorch, the loss is NaN; no other loss replaces it.

    Args:
        target_threshold: shares of a class above it count as 1, the others as 0; `None` uses the shares themselves.

    Source: Wightman et al., "ResNet strikes back", arXiv:2110.00476, and timm's `BinaryCrossEntropy`, for the mean and
    the threshold.
    """

    def __init__(self, target_threshold: float | None = None, name="classwise_binary_crossentropy", **arguments):
        super().__init__(name=name, **arguments)
        self.target_threshold = target_threshold

    def call(self, y_true, y_pred):
        if self.target_threshold is not None:
            y_true = ops.cast(y_true > self.target_threshold, y_pred.dtype)
        logits = logits_of(y_pred)
        if logits is None:
            logits = y_pred * float("nan")
        return ops.mean(ops.binary_crossentropy(y_true, logits, from_logits=True), axis=-1)

    def get_config(self):
        return {**super().get_config(), "target_threshold": self.target_threshold}
