"""Makes Keras objects from the settings of a recipe: an optimizer, and the schedule of its learning rate."""

from typing import Any

import keras
from keras import ops

from polynet_keras.training.lamb import Lamb
from polynet_keras.training.learning_rate_factors import SGD, AdamW
from polynet_keras.training.optimizers import RMSprop
from polynet_keras.training.recipes.optimizer import DEFAULTS, OptimizerSettings
from polynet_keras.training.recipes.schedule import ScheduleSettings

OPTIMIZERS = {
    "rmsprop": RMSprop,
    "sgd": SGD,
    "adamw": AdamW,
    "lamb": Lamb,
}


def make_optimizer(
    settings: OptimizerSettings,
    learning_rate: float | keras.optimizers.schedules.LearningRateSchedule,
    weight_decay: float,
    model: keras.Model,
) -> keras.optimizers.Optimizer:
    """Makes the optimizer of a recipe for a model.

    Args:
        settings: optimizer settings of the recipe.
        learning_rate: a number, or a schedule over steps.
        weight_decay: the share of a weight, times the learning rate, that an update subtracts (AdamW's, decoupled from
            the gradient, for every optimizer). Biases, and scales and offsets of normalizations, do not decay.
        model: the built model.
    """
    arguments: dict[str, Any] = {
        **{name: getattr(settings, name) for name in DEFAULTS[settings.name]},
        # Keras's AdamW has no None.
        "weight_decay": weight_decay or (0.0 if settings.name == "adamw" else None),
        "global_clipnorm": settings.global_clipnorm or None,
        "learning_rate_factors": settings.factors,
    }
    if settings.gradient_accumulation_steps > 1:
        arguments["gradient_accumulation_steps"] = settings.gradient_accumulation_steps
    if settings.ema_momentum:
        # Keras averages at every step, whether it ends in an update or not.
        momentum = settings.ema_momentum ** (1 / settings.gradient_accumulation_steps)
        arguments |= {"use_ema": True, "ema_momentum": momentum}
    if settings.name == "sgd":
        arguments["nesterov"] = arguments["momentum"] > 0
    if settings.decay_in_ratio:
        return Lamb(learning_rate, ratio_decay=arguments.pop("weight_decay") or 0.0, **arguments)
    optimizer = OPTIMIZERS[settings.name](learning_rate, **arguments)
    if weight_decay:
        undecayed = [variable for variable in model.trainable_variables if len(variable.shape) <= 1]
        optimizer.exclude_from_weight_decay(var_list=undecayed)
    return optimizer


def make_schedule(
    settings: ScheduleSettings, steps: int, steps_per_epoch: int
) -> keras.optimizers.schedules.LearningRateSchedule:
    """Makes the schedule of a run of `steps` steps; Keras also counts steps without an update."""
    warmup = round(settings.warmup_share * steps)
    if settings.name == "cosine" and not warmup:
        return keras.optimizers.schedules.CosineDecay(settings.learning_rate, steps)
    if settings.name == "cosine":
        return keras.optimizers.schedules.CosineDecay(
            0.0, max(1, steps - warmup), warmup_target=settings.learning_rate, warmup_steps=warmup
        )
    if settings.decay_epochs is None:
        return Warmup(settings.learning_rate, warmup)
    decay = keras.optimizers.schedules.ExponentialDecay(
        settings.learning_rate,
        settings.decay_epochs * steps_per_epoch,
        settings.decay_factor,
        staircase=settings.name == "step",
    )
    return Warmup(decay, warmup)


@keras.saving.register_keras_serializable(package="polynet_keras")
class Warmup(keras.optimizers.schedules.LearningRateSchedule):
    """A learning rate that rises in equal steps, from zero, to the rate of another schedule.

    It is `min(1, step / steps) · schedule(step)`; Keras has a warm-up for its cosine schedule only.

    Args:
        schedule: a learning rate or a schedule.
        steps: steps of the warm-up; 0 for none.
    """

    def __init__(self, schedule: float | keras.optimizers.schedules.LearningRateSchedule, steps: int):
        super().__init__()
        self.schedule = schedule
        self.steps = steps

    def __call__(self, step):
        rate = self.schedule(step) if callable(self.schedule) else self.schedule
        if not self.steps:
            return ops.convert_to_tensor(rate, "float32")
        return ops.minimum(ops.cast(step, "float32") / self.steps, 1.0) * rate

    def get_config(self):
        return {"schedule": keras.saving.serialize_keras_object(self.schedule), "steps": self.steps}

    @classmethod
    def from_config(cls, config):
        return cls(keras.saving.deserialize_keras_object(config["schedule"]), config["steps"])
