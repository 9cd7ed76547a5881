"""The optimizer of a recipe: which one, its settings, clipping, accumulation and averages of the weights."""

from dataclasses import dataclass
from typing import Any

import keras

from polynet_keras.basics.checks import check_choice, check_integer, check_number, plain_numbers, settle_own
from polynet_keras.training.optimizers import RMSprop

DEFAULTS: dict[str, dict[str, float]] = {
    "rmsprop": {"rho": 0.9, "momentum": 0.0, "epsilon": 1e-7},
    "sgd": {"momentum": 0.9},
    "adamw": {"beta_1": 0.9, "beta_2": 0.999, "epsilon": 1e-7},
    "lamb": {"beta_1": 0.9, "beta_2": 0.999, "epsilon": 1e-7},
}
"""Of each optimizer, the settings that are its own, and what they are where a recipe does not say."""
OPTIMIZERS_OWN = ("momentum", "rho", "epsilon", "beta_1", "beta_2")


@dataclass(frozen=True)
class OptimizerSettings:
    """An optimizer: `polynet_keras`'s RMSprop, or Keras's SGD (with Nesterov's momentum), AdamW or Lamb.

    Attributes:
        name: `"rmsprop"`, the poster's, `"sgd"`, `"adamw"` or `"lamb"`.
        momentum: of rmsprop (default 0) and sgd (default 0.9).
        rho: decay of the mean square of rmsprop (default 0.9).
        epsilon: of rmsprop, adamw and lamb (default 1e-7).
        beta_1, beta_2: decay of the moments of adamw and lamb (default 0.9 and 0.999).
        global_clipnorm: the gradient, of all variables together, is scaled down to this norm; 0 for no clipping.
        gradient_accumulation_steps: so many steps' gradients are averaged for one update. `batch_size` is a step's.
        ema_momentum: of the exponential moving averages of the weights, an update: 0.999, say. Validation and the
            model that is saved use the averages. 0 for none.

    Raises:
        ValueError: a value out of range, or a setting that is not one of this optimizer.
    """

    name: str = "rmsprop"
    momentum: float | None = None
    rho: float | None = None
    epsilon: float | None = None
    beta_1: float | None = None
    beta_2: float | None = None
    global_clipnorm: float = 0.0
    gradient_accumulation_steps: int = 1
    ema_momentum: float = 0.0

    def __post_init__(self):
        plain_numbers(self)
        check_choice("optimizer", self.name, tuple(DEFAULTS))
        settle_own(self, "optimizer", self.name, DEFAULTS)
        for setting in DEFAULTS[self.name]:
            value = getattr(self, setting)
            if setting == "epsilon":
                check_number(setting, value, above=0)
            else:
                check_number(setting, value, at_least=0, below=1)
        check_number("global_clipnorm", self.global_clipnorm, at_least=0)
        check_integer("gradient_accumulation_steps", self.gradient_accumulation_steps, at_least=1)
        check_number("ema_momentum", self.ema_momentum, at_least=0, below=1)

    def make(
        self,
        learning_rate: float | keras.optimizers.schedules.LearningRateSchedule,
        weight_decay: float,
        model: keras.Model,
    ) -> keras.optimizers.Optimizer:
        """The optimizer for a model.

        Args:
            learning_rate: a number, or a schedule over steps.
            weight_decay: the share of a weight, times the learning rate, that an update takes off (AdamW's, decoupled
                from the gradient, for every optimizer). Biases, and scales and offsets of normalizations, keep theirs.
            model: built.
        """
        arguments: dict[str, Any] = {
            **{name: getattr(self, name) for name in DEFAULTS[self.name]},
            # Keras's AdamW has no None.
            "weight_decay": weight_decay or (0.0 if self.name == "adamw" else None),
            "global_clipnorm": self.global_clipnorm or None,
        }
        if self.gradient_accumulation_steps > 1:
            arguments["gradient_accumulation_steps"] = self.gradient_accumulation_steps
        if self.ema_momentum:
            # Keras averages at every step, whether it ends in an update or not.
            momentum = self.ema_momentum ** (1 / self.gradient_accumulation_steps)
            arguments |= {"use_ema": True, "ema_momentum": momentum}
        if self.name == "sgd":
            arguments["nesterov"] = arguments["momentum"] > 0
        optimizer = OPTIMIZERS[self.name](learning_rate, **arguments)
        if weight_decay:
            undecayed = [variable for variable in model.trainable_variables if len(variable.shape) <= 1]
            optimizer.exclude_from_weight_decay(var_list=undecayed)
        return optimizer


OPTIMIZERS = {
    "rmsprop": RMSprop,
    "sgd": keras.optimizers.SGD,
    "adamw": keras.optimizers.AdamW,
    "lamb": keras.optimizers.Lamb,
}
