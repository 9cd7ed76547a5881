"""The learning rate of a recipe: a warm-up, and then a decay over the run."""

from dataclasses import dataclass

import keras
from keras import ops

from polynet_keras.basics.checks import check_choice, check_number, plain_numbers

SCHEDULES = ("cosine", "step", "exponential", "constant")
SCHEDULES_OWN = ("decay_epochs", "decay_factor")
"""The settings that only some of them have."""


@dataclass(frozen=True)
class ScheduleSettings:
    """How the learning rate goes over a run.

    Attributes:
        name: `"cosine"` falls to zero at the end of the run; `"step"` is multiplied with `decay_factor` every
            `decay_epochs`, and `"exponential"` falls by the same factor smoothly; `"constant"`.
        learning_rate: the highest.
        warmup_share: of the run's steps, over which the learning rate rises from zero, in equal steps.
        decay_epochs: of step and exponential, counted from the beginning of the run.
        decay_factor: of step and exponential.

    Raises:
        ValueError: a value out of range, or a setting that is not one of this schedule.
    """

    name: str = "cosine"
    learning_rate: float = 0.002
    warmup_share: float = 0.1
    decay_epochs: float | None = None
    decay_factor: float | None = None

    def __post_init__(self):
        plain_numbers(self)
        check_choice("schedule", self.name, SCHEDULES)
        check_number("learning_rate", self.learning_rate, above=0)
        check_number("warmup_share", self.warmup_share, at_least=0, at_most=1)
        decays = self.name in ("step", "exponential")
        for name, at_most in (("decay_epochs", None), ("decay_factor", 1)):
            value = getattr(self, name)
            if decays and value is None:
                raise ValueError(f"schedule={self.name!r} needs decay_epochs and decay_factor; {name} is missing")
            if not decays and value is not None:
                raise ValueError(f"{name}={value!r} is a setting of step and exponential, not of {self.name!r}")
            if decays:
                check_number(name, value, above=0, at_most=at_most)

    def make(self, steps: int, steps_per_epoch: int) -> keras.optimizers.schedules.LearningRateSchedule:
        """The schedule of a run of so many steps; Keras counts steps, also those that end in no update."""
        warmup = round(self.warmup_share * steps)
        if self.name == "cosine" and not warmup:
            return keras.optimizers.schedules.CosineDecay(self.learning_rate, steps)
        if self.name == "cosine":
            return keras.optimizers.schedules.CosineDecay(
                0.0, max(1, steps - warmup), warmup_target=self.learning_rate, warmup_steps=warmup
            )
        if self.decay_epochs is None:
            return Warmup(self.learning_rate, warmup)
        decay = keras.optimizers.schedules.ExponentialDecay(
            self.learning_rate, self.decay_epochs * steps_per_epoch, self.decay_factor, staircase=self.name == "step"
        )
        return Warmup(decay, warmup)


@keras.saving.register_keras_serializable(package="polynet_keras")
class Warmup(keras.optimizers.schedules.LearningRateSchedule):
    """A learning rate that rises in equal steps, from zero, to that of another schedule.

    `min(1, step / steps) · schedule(step)`; Keras has a warm-up for its cosine alone.

    Args:
        schedule: a learning rate or a schedule.
        steps: of the warm-up; 0 for none.
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
