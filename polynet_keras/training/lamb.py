"""LAMB with learning rates by part, and with the weight decay in the update that the trust ratio scales."""

import keras
from keras import ops

from polynet_keras.basics.checks import check_number
from polynet_keras.training.learning_rate_factors import LearningRateFactors


@keras.saving.register_keras_serializable(package="polynet_keras")
class Lamb(LearningRateFactors, keras.optimizers.Lamb):
    """`keras.optimizers.Lamb` with `learning_rate_factors`, and with `ratio_decay` as its paper and timm have it.

        r ← m̂ / (√v̂ + ε) + ratio_decay · w
        w ← w − learning_rate · ‖w‖ / ‖r‖ · r

    Keras's own optimizer subtracts `learning_rate · weight_decay · w` in addition, whatever the ratio. In a network
    with batch normalization, the kernels then shrink over a long run until the ε of the normalizations matters: by a
    factor of several thousand at the rates and decay of "ResNet strikes back". Here the ratio falls with the kernels,
    and so does the decay.

    With `ratio_decay`, vectors and scalars (biases and the parameters of normalizations) have neither decay nor ratio.

    Args:
        ratio_decay: ≥ 0; None for Keras's own update.

    The other arguments are those of `keras.optimizers.Lamb`, and `learning_rate_factors` as in `training.RMSprop`. A
    factor multiplies the update with its ratio; the ratio is computed without the factor.

    Raises:
        ValueError: an argument is out of range, or both `weight_decay` and `ratio_decay` are given.

    Source: You et al., "Large batch optimization for deep learning", arXiv:1904.00962, Algorithm 2; timm's `Lamb`.

    Examples:
        >>> weight = keras.Variable([[3.0, 4.0]])  # of norm 5
        >>> Lamb(0.1, ratio_decay=0.02).apply([keras.ops.ones((1, 2))], [weight])
        >>> keras.ops.convert_to_numpy(weight).astype("float64").round(2).tolist()
        [[2.65, 3.64]]
    """

    def __init__(self, learning_rate=0.001, *, ratio_decay: float | None = None, **arguments):
        if ratio_decay is not None:
            check_number("ratio_decay", ratio_decay, at_least=0)
            if arguments.get("weight_decay"):
                raise ValueError(
                    f"weight_decay={arguments['weight_decay']!r} would be beside the ratio; leave out one of it and "
                    f"ratio_decay={ratio_decay!r}"
                )
        super().__init__(learning_rate=learning_rate, **arguments)
        self.ratio_decay = ratio_decay

    def update_step(self, gradient, variable, learning_rate):
        if self.ratio_decay is None:
            super().update_step(gradient, variable, learning_rate)
            return
        rate = ops.cast(self.begin_update(variable, learning_rate), variable.dtype)
        gradient = ops.cast(gradient, variable.dtype)
        step = ops.cast(self.iterations + 1, variable.dtype)
        place = self._get_variable_index(variable)
        mean, square = self._momentums[place], self._velocities[place]
        self.assign_add(mean, (gradient - mean) * (1 - self.beta_1))
        self.assign_add(square, (ops.square(gradient) - square) * (1 - self.beta_2))
        mean_hat = mean / (1 - ops.power(ops.cast(self.beta_1, variable.dtype), step))
        square_hat = square / (1 - ops.power(ops.cast(self.beta_2, variable.dtype), step))
        update = mean_hat / (ops.sqrt(square_hat) + self.epsilon)
        if len(variable.shape) > 1:
            update = update + self.ratio_decay * variable
            norms = [ops.sqrt(ops.sum(ops.square(tensor))) for tensor in (variable, update)]
            both = ops.logical_and(norms[0] > 0, norms[1] > 0)
            update = update * ops.where(both, norms[0] / ops.where(both, norms[1], 1.0), 1.0)
        self.assign_sub(variable, rate * update)

    def get_config(self):
        return {**super().get_config(), "ratio_decay": self.ratio_decay}
