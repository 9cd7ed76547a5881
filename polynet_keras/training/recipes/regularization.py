"""A recipe's measures against overfitting, apart from the images: decay, smoothed labels, stochastic depth."""

import os
from dataclasses import dataclass
from typing import Any

from polynet_keras.basics.checks import check_choice, check_integer, check_number, plain_numbers, settle_own

DEFAULTS: dict[str, dict[str, Any]] = {
    "off": {},
    "on": {"max_drop_rate": 0.25},
    "adaptive": {
        "max_drop_rate": 0.25,
        "drop_rate_step": 0.05,
        "gap_metric": "accuracy",
        "gap_threshold": 0.05,
        "gap_window": 3,
    },
}
"""The settings of each kind of stochastic depth, with their defaults."""
TEACHER = {"teacher_temperature": 4.0, "teacher_weight": 0.9}
"""The usual values in the field, as in Zagoruyko, Komodakis, "Paying More Attention to Attention", ICLR 2017."""
DEPTHS_OWN = tuple(DEFAULTS["adaptive"])


@dataclass(frozen=True)
class Regularization:
    """A run's measures against overfitting.

    Attributes:
        weight_decay: the share of a weight, times the learning rate, that an update subtracts; of kernels only.
        label_smoothing: the share of a label that is spread over all classes, in training.
        teacher: a trained model that the network learns from besides the labels (`training.distillation`): a run
            folder, a `.keras` file with a card, or the name of a published checkpoint. It must know all classes of the
            data.
        teacher_temperature: divisor of both networks' logits where they are compared.
        teacher_weight: weight of the teacher in the loss; the labels have 1 minus this weight.
        stochastic_depth: `"off"`; `"on"` from the beginning; or `"adaptive"`, the poster's: when overfitting emerges
            (`training.stochastic_depth`).
        max_drop_rate: the highest drop rate of the deepest residual unit's paths (default 0.25); the rate falls
            linearly to 0 at the first unit.
        drop_rate_step: step by which the adaptive drop rate rises and falls (default 0.05).
        gap_metric: `"accuracy"` (the default) or `"loss"`: the metric whose gap between training and validation
            controls the adaptive drop rate.
        gap_threshold: the gap above which the network overfits (default 0.05).
        gap_window: consecutive epochs that must agree for a decision (default 3).

    Raises:
        ValueError: a value is out of range, or a setting does not belong to this kind of stochastic depth.

    Examples:
        >>> regularization = Regularization(weight_decay=0.05, stochastic_depth="adaptive")
        >>> regularization.max_drop_rate, regularization.gap_metric
        (0.25, 'accuracy')
    """

    weight_decay: float = 0.0
    label_smoothing: float = 0.0
    teacher: str | None = None
    teacher_temperature: float = TEACHER["teacher_temperature"]
    teacher_weight: float = TEACHER["teacher_weight"]
    stochastic_depth: str = "off"
    max_drop_rate: float | None = None
    drop_rate_step: float | None = None
    gap_metric: str | None = None
    gap_threshold: float | None = None
    gap_window: int | None = None

    def __post_init__(self):
        plain_numbers(self)
        check_number("weight_decay", self.weight_decay, at_least=0)
        check_number("label_smoothing", self.label_smoothing, at_least=0, below=1)
        self._check_teacher()
        check_choice("stochastic_depth", self.stochastic_depth, tuple(DEFAULTS))
        settle_own(self, "stochastic_depth", self.stochastic_depth, DEFAULTS)
        for name in DEFAULTS[self.stochastic_depth]:
            value = getattr(self, name)
            if name == "gap_metric":
                check_choice(name, value, ("accuracy", "loss"))
            elif name == "gap_window":
                check_integer(name, value, at_least=1)
            else:
                check_number(name, value, above=0, at_most=0.95 if name == "max_drop_rate" else None)

    def _check_teacher(self) -> None:
        if self.teacher is not None and not isinstance(self.teacher, (str, os.PathLike)):
            raise ValueError(f"teacher={self.teacher!r} must be the name of a checkpoint, a file or a run folder")
        object.__setattr__(self, "teacher", None if self.teacher is None else os.fspath(self.teacher) or None)
        for name, usual in TEACHER.items():
            if getattr(self, name) is None:  # another teacher forgets it
                object.__setattr__(self, name, usual)
        check_number("teacher_temperature", self.teacher_temperature, above=0)
        check_number("teacher_weight", self.teacher_weight, above=0, at_most=1)
        for name, usual in TEACHER.items():
            if self.teacher is None and getattr(self, name) != usual:
                raise ValueError(f"{name}={getattr(self, name)!r} needs a teacher")
