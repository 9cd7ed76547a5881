"""The learning rate of a recipe: a warm-up, and then a decay over the run."""

from dataclasses import dataclass

from polynet_keras.basics.checks import check_choice, check_number, plain_numbers

SCHEDULES = ("cosine", "step", "exponential", "constant")
SCHEDULES_OWN = ("decay_epochs", "decay_factor")
"""The settings that only some schedules have."""


@dataclass(frozen=True)
class ScheduleSettings:
    """The learning rate over a run.

    Attributes:
        name: `"cosine"` falls to zero at the end of the run; `"step"` is multiplied by `decay_factor` every
            `decay_epochs`; `"exponential"` falls by the same factor smoothly; `"constant"` does not fall.
        learning_rate: the highest.
        warmup_share: share of the run's steps in which the learning rate rises from zero, in equal steps.
        decay_epochs: of step and exponential, counted from the beginning of the run.
        decay_factor: of step and exponential.

    Raises:
        ValueError: a value is out of range, or a setting does not belong to this schedule.

    Examples:
        >>> schedule = ScheduleSettings("step", 0.45, warmup_share=0.0, decay_epochs=64, decay_factor=0.1)
        >>> Recipe(schedule=schedule).schedule.learning_rate
        0.45
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
