"""Learning rates by part of the network, for every optimizer that a recipe may name."""

from collections.abc import Mapping

import keras

from polynet_keras.layers.variable_names import plain_variable_names
from polynet_keras.models.parts import check_factors, part_of


class LearningRateFactors(keras.optimizers.Optimizer):
    """A base class in front of one of Keras's optimizers: the learning rate of a variable depends on its part.

    A factor multiplies the same as `lr` of PyTorch's parameter groups: the whole update, including decoupled weight
    decay. Everything else covers all variables together, as without factors: the global norm for clipping, the count of
    accumulated steps, the averages, the schedule, `learning_rate`, and the names in a checkpoint.
    `keras.optimizers.MultiOptimizer` has one optimizer per part: each clips by the norm of its own gradients,
    `learning_rate` raises an error, and it does not accept gradients for only some of the variables.

    Args:
        learning_rate_factors: factors on the learning rate, ≥ 0, for parts of a PolyNet (`models.parts.PARTS`: "stem",
            "stage_a", …, "predictions"). All other variables have 1.

    The other arguments are those of Keras's optimizer.

    Raises:
        ValueError: there is no such part, or a factor is out of range; when it is built, if no variable belongs to a
            part.
    """

    def __init__(self, *args, learning_rate_factors: Mapping[str, float] | None = None, **kwargs):
        check_factors("learning_rate_factors", learning_rate_factors)
        super().__init__(*args, **kwargs)
        self.learning_rate_factors = dict(learning_rate_factors or {})
        self._factors: list[float] = []  # by number of the variable

    def build(self, var_list):
        if self.built:
            return
        with plain_variable_names():
            super().build(var_list)
        # A variable's path ends in its layer's name and its own.
        parts = [part_of(variable.path.rpartition("/")[0].rpartition("/")[2]) for variable in var_list]
        if self.learning_rate_factors and not any(parts):
            raise ValueError(
                "learning_rate_factors are for parts of a PolyNet, but none of its variables is trained here"
            )
        self._factors = [self.learning_rate_factors.get(part, 1.0) if part else 1.0 for part in parts]

    def _apply_weight_decay(self, variables):
        if not self.learning_rate_factors:  # else `begin_update` has them decay
            super()._apply_weight_decay(variables)

    def begin_update(self, variable, learning_rate):
        """Applies the weight decay of a variable that is about to be updated, and returns its learning rate."""
        if not self.learning_rate_factors:
            return learning_rate
        learning_rate = learning_rate * self._factors[self._get_variable_index(variable)]
        if self.weight_decay is not None and self._use_weight_decay(variable):
            rate = keras.ops.cast(learning_rate, variable.dtype)
            self.assign_sub(variable, variable * keras.ops.cast(self.weight_decay, variable.dtype) * rate)
        return learning_rate

    def update_step(self, gradient, variable, learning_rate):
        return super().update_step(gradient, variable, self.begin_update(variable, learning_rate))

    def get_config(self):
        return {**super().get_config(), "learning_rate_factors": self.learning_rate_factors or None}


@keras.saving.register_keras_serializable(package="polynet_keras")
class SGD(LearningRateFactors, keras.optimizers.SGD):
    """`keras.optimizers.SGD` with `learning_rate_factors` for parts of a PolyNet, as in `training.RMSprop`.

    Examples:
        >>> optimizer = SGD(0.01, momentum=0.9, learning_rate_factors={"stem": 0.1})
        >>> InceptionResNet((1, 1, 1), width=0.1).compile(optimizer, "sparse_categorical_crossentropy")
        >>> optimizer.learning_rate_factors["stem"]
        0.1
    """


@keras.saving.register_keras_serializable(package="polynet_keras")
class AdamW(LearningRateFactors, keras.optimizers.AdamW):
    """`keras.optimizers.AdamW` with `learning_rate_factors` for parts of a PolyNet, as in `training.RMSprop`.

    Examples:
        >>> optimizer = AdamW(0.001, weight_decay=0.05, learning_rate_factors={"stem": 0.1})
        >>> InceptionResNet((1, 1, 1), width=0.1).compile(optimizer, "sparse_categorical_crossentropy")
        >>> optimizer.learning_rate_factors["stem"]
        0.1
    """
