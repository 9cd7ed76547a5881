"""Stochastic depth against overfitting: on from the beginning, or adaptive to the overfitting that emerges."""

from typing import Any

import keras
import numpy as np

from polynet_keras.basics.checks import check_choice, check_integer, check_number
from polynet_keras.basics.names import number_of
from polynet_keras.basics.news import tell
from polynet_keras.cluster.workers import is_chief, model_strategy, scope_of
from polynet_keras.layers.stochastic_residual_scaling import StochasticResidualScaling
from polynet_keras.models.residual_scale import linear

METRICS = ("accuracy", "loss")
"""The metrics whose gap between training and validation can be watched."""


def set_drop_rate(model: keras.Model, rate: float) -> None:
    """Sets the drop rate of residual paths in training: `rate` for the deepest unit, 0 for the first.

    The rate rises linearly with depth. The outputs at inference, and the expectation of every sum in training, do not
    change: the scale of a path is divided by its survival probability. Nothing is retraced.

    Args:
        model: model of `PolyNet` or `InceptionResNet`.
        rate: in [0, 1); 0 switches the stochastic paths off.

    Raises:
        ValueError: the model has no residual units, or the rate is out of range.

    Source: Huang et al., "Deep networks with stochastic depth", ECCV 2016, for the linear decay.

    Examples:
        >>> model = InceptionResNet((1, 1, 1), width=0.1)
        >>> set_drop_rate(model, 0.2)
        >>> deepest = model.get_layer("stage_c_01_sum_f")
        >>> round(float(deepest.survival_probability[0]), 2)
        0.8
    """
    if not 0 <= rate < 1:
        raise ValueError(f"rate={rate!r} must be in [0, 1)")
    layers = [layer for layer in model.layers if isinstance(layer, StochasticResidualScaling)]
    if not layers:
        raise ValueError(f"the model {model.name!r} has no residual units; pass the result of PolyNet()")
    # With a single unit, the first is the deepest.
    drops = linear(0.0, rate, len(layers)) if len(layers) > 1 else (rate,)
    for layer, drop in zip(layers, drops, strict=True):
        scale, survival = (keras.ops.convert_to_numpy(v) for v in (layer.scale, layer.survival_probability))
        factor = scale * survival  # at inference
        kept = np.full_like(factor, 1 - drop)
        layer.survival_probability.assign(kept)
        layer.scale.assign(factor / kept)
        layer.active.assign(rate > 0)


class AdaptiveStochasticDepth(keras.callbacks.Callback):
    """Switches stochastic depth on when overfitting emerges, and adapts its rate as overfitting grows and wanes.

        model.fit(..., validation_data=..., callbacks=[AdaptiveStochasticDepth(), *writers])

    After each epoch, the gaps between training and validation in the last `window` epochs decide:

    * If all are above `threshold`, the network overfits: the drop rate of the deepest residual unit rises by `step`, up
      to `max_drop_rate`.
    * If all are below 0, training is worse than validation, and the network underfits: the rate falls by `step`, down
      to 0, where the stochastic paths are off.

    A single epoch decides nothing: in the first epochs the moving statistics of normalizations lag behind, and
    validation is bad without overfitting. After a decision the window begins anew. Drop rates rise linearly with depth
    (`set_drop_rate`). The callback adds `drop_rate`, the rate in the epoch, and `gap`, the gap of the epoch alone, to
    the logs. To have them in history, CSV and TensorBoard, put it before their writers. It logs its decisions.
    `Checkpoints` save its state. With several workers, every worker needs it.

    Args:
        metric: `"accuracy"` (training − validation) or `"loss"` (validation − training), among the logs.
        threshold: threshold of the gap, > 0.
        window: number of epochs.
        step: > 0.
        max_drop_rate: in (0, 0.95].

    Raises:
        ValueError: an argument is out of range; from `fit`, there is no validation data, the metric is not logged, or
            the model has no residual units.

    Source: the authors' poster on PolyNet, CVPR 2017: "Overfitting observed for ultra-deep networks, and tackled by
    adaptive stochastic depth". The poster does not say when and how it adapts; these rules are this package's.

    Examples:
        >>> model = InceptionResNet((1, 1, 1), width=0.1, input_shape=(75, 75, 3), classes=2)
        >>> model.compile("sgd", "sparse_categorical_crossentropy", metrics=["accuracy"])
        >>> data = np.zeros((2, 75, 75, 3)), np.array([0, 1])
        >>> history = model.fit(*data, validation_data=data, callbacks=[AdaptiveStochasticDepth()], verbose=0)
        >>> history.history["drop_rate"]
        [0.0]
    """

    def __init__(
        self,
        metric: str = "accuracy",
        threshold: float = 0.05,
        window: int = 3,
        step: float = 0.05,
        max_drop_rate: float = 0.25,
    ):
        super().__init__()
        check_choice("metric", metric, METRICS)
        check_number("threshold", threshold, above=0)
        check_integer("window", window, at_least=1)
        check_number("step", step, above=0)
        check_number("max_drop_rate", max_drop_rate, above=0, at_most=0.95)
        self.metric = metric
        self.threshold = threshold
        self.window = window
        self.step = step
        self.max_drop_rate = max_drop_rate
        self.drop_rate = 0.0
        self._gaps: list[float] = []

    def on_train_begin(self, logs=None):
        self._set(self.drop_rate)  # reports a model without residual units now

    def on_epoch_end(self, epoch, logs=None):
        gap = self._gap(logs or {})
        logs["drop_rate"], logs["gap"] = self.drop_rate, gap
        self._gaps.append(gap)
        if len(self._gaps) < self.window:
            return
        lowest, highest = min(self._gaps[-self.window :]), max(self._gaps[-self.window :])
        rate = self.drop_rate
        if lowest > self.threshold:
            rate = min(self.max_drop_rate, rate + self.step)
        elif highest < 0:
            rate = max(0.0, rate - self.step)
        rate = round(rate, 12)  # sums of steps meet 0 and the bound
        if rate == self.drop_rate:
            return
        if is_chief(model_strategy(self.model)):
            tell(
                "epoch %d: the gap in %s was %.4f to %.4f over %s: the drop rate goes from %.3g to %.3g",
                epoch + 1,
                self.metric,
                lowest,
                highest,
                number_of(self.window, "epoch"),
                self.drop_rate,
                rate,
            )
        self._gaps.clear()
        self._set(rate)

    def get_state(self) -> dict[str, Any]:
        """Returns the state for a checkpoint; the rates themselves are variables of the model."""
        return {"drop_rate": self.drop_rate, "gaps": self._gaps[-self.window :]}

    def set_state(self, state: dict[str, Any]) -> None:
        self.drop_rate = float(state["drop_rate"])
        self._gaps = [float(gap) for gap in state["gaps"]]

    def _set(self, rate: float) -> None:
        self.drop_rate = rate
        with scope_of(model_strategy(self.model)):
            set_drop_rate(self.model, rate)

    def _gap(self, logs: dict[str, float]) -> float:
        names = (self.metric, f"val_{self.metric}")
        missing = [name for name in names if name not in logs]
        if missing:
            raise ValueError(
                f"metric={self.metric!r}: {missing[0]!r} is not among the logs ({', '.join(logs)}); compile the model "
                "with this metric, and give fit() validation data for every epoch"
            )
        training, validation = (float(logs[name]) for name in names)
        return validation - training if self.metric == "loss" else training - validation
