"""What a recipe does against overfitting, apart from the images: decay, smoothed labels, stochastic depth."""

from dataclasses import dataclass

from polynet_keras.training.checks import check_choice, check_integer, check_number

STOCHASTIC_DEPTH = ("off", "on", "adaptive")


@dataclass(frozen=True)
class Regularization:
    """What a run does against overfitting.

    Attributes:
        weight_decay: the share of a weight, times the learning rate, that an update takes off; of kernels only.
        label_smoothing: the share of a label that is spread over all classes, in training.
        stochastic_depth: `"off"`; `"on"` from the beginning, at `max_drop_rate`; or `"adaptive"`, the poster's: when
            overfitting emerges (`training.stochastic_depth`).
        max_drop_rate: the most that the deepest residual unit's paths may be dropped; it falls linearly to 0 at the
            first unit.
        drop_rate_step: by which the adaptive drop rate rises and falls.
        gap_metric: `"accuracy"` or `"loss"`, of training and validation: the adaptive one watches the gap between them.
        gap_threshold: the gap from which there is overfitting.
        gap_window: epochs that have to say the same, one after the other, for a decision.

    Raises:
        ValueError: a value out of range.
    """

    weight_decay: float = 0.0
    label_smoothing: float = 0.0
    stochastic_depth: str = "off"
    max_drop_rate: float = 0.25
    drop_rate_step: float = 0.05
    gap_metric: str = "accuracy"
    gap_threshold: float = 0.05
    gap_window: int = 3

    def __post_init__(self):
        check_number("weight_decay", self.weight_decay, at_least=0)
        check_number("label_smoothing", self.label_smoothing, at_least=0, at_most=1)
        check_choice("stochastic_depth", self.stochastic_depth, STOCHASTIC_DEPTH)
        check_number("max_drop_rate", self.max_drop_rate, above=0, at_most=0.95)
        check_number("drop_rate_step", self.drop_rate_step, above=0, at_most=1)
        check_choice("gap_metric", self.gap_metric, ("accuracy", "loss"))
        check_number("gap_threshold", self.gap_threshold, above=0)
        check_integer("gap_window", self.gap_window, at_least=1)
