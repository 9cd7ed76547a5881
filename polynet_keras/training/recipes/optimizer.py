"""The optimizer of a recipe: its name, settings, clipping, accumulation and averages of the weights."""

from collections.abc import Mapping
from dataclasses import dataclass

from polynet_keras.basics.checks import check_choice, check_flag, check_integer, check_number, plain_numbers, settle_own
from polynet_keras.models.parts import PARTS, check_factors

DEFAULTS: dict[str, dict[str, float]] = {
    "rmsprop": {"rho": 0.9, "momentum": 0.0, "epsilon": 1e-7},
    "sgd": {"momentum": 0.9},
    "adamw": {"beta_1": 0.9, "beta_2": 0.999, "epsilon": 1e-7},
    "lamb": {"beta_1": 0.9, "beta_2": 0.999, "epsilon": 1e-7},
}
"""The settings that only some optimizers have, by optimizer, with their defaults."""
OPTIMIZERS_OWN = ("momentum", "rho", "epsilon", "beta_1", "beta_2", "decay_in_ratio")


@dataclass(frozen=True)
class OptimizerSettings:
    """An optimizer: the package's RMSprop, or Keras's SGD (with Nesterov's momentum), AdamW or Lamb.

    Attributes:
        name: `"rmsprop"`, the poster's, `"sgd"`, `"adamw"` or `"lamb"`.
        momentum: of rmsprop (default 0) and sgd (default 0.9).
        rho: decay of the mean square of rmsprop (default 0.9).
        epsilon: of rmsprop, adamw and lamb (default 1e-7).
        beta_1, beta_2: decay of the moments of adamw and lamb (default 0.9 and 0.999).
        decay_in_ratio: for lamb: whether the weight decay is part of the update that the trust ratio scales, as in its
            paper and timm (`training.lamb`); otherwise it is separate, as in Keras.
        global_clipnorm: the norm to which the gradient of all variables together is scaled down; 0 for no clipping.
        gradient_accumulation_steps: number of steps whose gradients are averaged for one update. `batch_size` is per
            step.
        ema_momentum: momentum of the exponential moving averages of the weights, per update, such as 0.999. Validation
            and the saved model use the averages. 0 for none.
        learning_rate_factors: factors on the learning rate, by part of the network (`models.parts.PARTS`); other parts
            have 1. A factor multiplies the whole update, including weight decay.
        layer_decay: such factors for all parts: 1 for the classifier, and for each part before it the factor of the
            next part times `layer_decay`, so that the stem has its sixth power. timm and BEiT count single blocks; the
            parts are the same for a network of any depth.

    Raises:
        ValueError: a value is out of range, or a setting does not belong to this optimizer.

    Examples:
        >>> OptimizerSettings("sgd").momentum
        0.9
        >>> OptimizerSettings(layer_decay=0.5).factors["stem"]
        0.015625
    """

    name: str = "rmsprop"
    momentum: float | None = None
    rho: float | None = None
    epsilon: float | None = None
    beta_1: float | None = None
    beta_2: float | None = None
    decay_in_ratio: bool = False
    global_clipnorm: float = 0.0
    gradient_accumulation_steps: int = 1
    ema_momentum: float = 0.0
    learning_rate_factors: Mapping[str, float] | None = None
    layer_decay: float = 1.0

    def __post_init__(self):
        plain_numbers(self)
        check_choice("optimizer", self.name, tuple(DEFAULTS))
        settle_own(self, "optimizer", self.name, DEFAULTS)
        object.__setattr__(self, "decay_in_ratio", self.decay_in_ratio or False)  # another optimizer forgets it
        check_flag("decay_in_ratio", self.decay_in_ratio)
        if self.decay_in_ratio and self.name != "lamb":
            raise ValueError(f"decay_in_ratio=True is a setting of optimizer=lamb, not of optimizer={self.name}")
        for setting in DEFAULTS[self.name]:
            value = getattr(self, setting)
            if setting == "epsilon":
                check_number(setting, value, above=0)
            else:
                check_number(setting, value, at_least=0, below=1)
        check_number("global_clipnorm", self.global_clipnorm, at_least=0)
        check_integer("gradient_accumulation_steps", self.gradient_accumulation_steps, at_least=1)
        check_number("ema_momentum", self.ema_momentum, at_least=0, below=1)
        check_factors("learning_rate_factors", self.learning_rate_factors)
        if self.learning_rate_factors is not None:
            factors = {part: float(factor) for part, factor in self.learning_rate_factors.items()}
            object.__setattr__(self, "learning_rate_factors", factors or None)
        check_number("layer_decay", self.layer_decay, above=0, at_most=1)
        if self.layer_decay < 1 and self.learning_rate_factors:
            raise ValueError(
                f"layer_decay={self.layer_decay:g} gives every part its factor, and learning_rate_factors gives "
                "others; leave one out"
            )

    @property
    def factors(self) -> dict[str, float] | None:
        """Factors on the learning rate, by part; None if all parts have the same."""
        if self.layer_decay < 1:
            return {part: self.layer_decay**distance for distance, part in enumerate(reversed(PARTS))}
        return dict(self.learning_rate_factors) if self.learning_rate_factors else None
