"""Fine-tuning: freezing the network up to a part, and training it in phases that unfreeze more and more of it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras

from polynet_keras.models.parts import PARTS, check_part, part_of


def freeze(model: keras.Model, through: str | None, normalizations: bool = False) -> None:
    """Freezes a network from the image up to a part, and unfreezes all behind it.

    A frozen layer's variables do not train, and a frozen batch normalization computes with its moving statistics and
    leaves them as they are, in training too. As always in Keras, `compile` comes after it.

    Args:
        model: what `PolyNet` or `InceptionResNet` returned, with or without the top; of a model that is built around
            it, the network itself.
        through: the last frozen part, one of `models.parts.PARTS`: "stem", "stage_a", "reduction_a", "stage_b",
            "reduction_b", "stage_c", "predictions"; `None` unfreezes all.
        normalizations: whether the batch normalizations of all parts are frozen, those behind `through` too. With few
            images, or images unlike those before, their new statistics are worse than the old ones.

    Raises:
        ValueError: no such part, or a model without parts.
    """
    if through is not None:
        check_part("through", through)
    frozen = PARTS[: PARTS.index(through) + 1] if through else ()
    parts = [(layer, part_of(layer.name)) for layer in model.layers]
    if not any(part for _, part in parts):
        raise ValueError(f"the model {model.name!r} has no layer of a PolyNet; pass what PolyNet() returned")
    model.trainable = True
    for layer, part in parts:
        if part:
            is_normalization = isinstance(layer, keras.layers.BatchNormalization)
            layer.trainable = part not in frozen and not (normalizations and is_normalization)


@dataclass(frozen=True)
class Phase:
    """A part of a fine-tuning run.

    Attributes:
        frozen_through: what is frozen, as `freeze` takes it.
        epochs: how many.
        optimizer: of this phase: its state starts new with it.
        normalizations_frozen: whether all batch normalizations are frozen too.
    """

    frozen_through: str | None
    epochs: int
    optimizer: keras.optimizers.Optimizer
    normalizations_frozen: bool = False

    def __post_init__(self):
        if self.frozen_through is not None:
            check_part("frozen_through", self.frozen_through)
        if isinstance(self.epochs, bool) or not isinstance(self.epochs, int) or self.epochs < 1:
            raise ValueError(f"epochs={self.epochs!r} must be an integer of at least 1")
        if not isinstance(self.optimizer, keras.optimizers.Optimizer):
            raise ValueError(f"optimizer={self.optimizer!r} must be a Keras optimizer; each phase has one of its own")


def fit_in_phases(
    model: keras.Model,
    phases: Sequence[Phase],
    *data: Any,
    compile_arguments: Mapping[str, Any],
    network: keras.Model | None = None,
    **fit_arguments: Any,
) -> dict[str, list]:
    """`compile` and `fit`, phase after phase: gradual unfreezing.

    Epochs are counted through all phases, so that logs and schedules of callbacks go on.

    Args:
        model: to train.
        phases: in order, each with its own optimizer.
        *data: what `model.fit` takes first: a dataset, or images and labels.
        compile_arguments: of `model.compile`, without the optimizer: loss, metrics and so on.
        network: what is frozen, where `model` is built around it; else `model` itself.
        **fit_arguments: of `model.fit`, without `epochs` and `initial_epoch`.

    Returns:
        What `fit(...).history` would be of one run: for each name, a list with a value an epoch.

    Raises:
        ValueError: no phase, two phases with one optimizer, or an argument that the phases decide.
    """
    if not phases:
        raise ValueError("phases is empty; pass at least one Phase")
    if len({id(phase.optimizer) for phase in phases}) < len(phases):
        raise ValueError("two phases have one and the same optimizer; give each a new one")
    for name in ("optimizer", "epochs", "initial_epoch"):
        if name in compile_arguments or name in fit_arguments:
            raise ValueError(f"{name} is decided by the phases; leave it out")
    history: dict[str, list] = {}
    epoch = 0
    for phase in phases:
        freeze(network or model, phase.frozen_through, phase.normalizations_frozen)
        model.compile(phase.optimizer, **compile_arguments)
        result = model.fit(*data, initial_epoch=epoch, epochs=epoch + phase.epochs, **fit_arguments)
        epoch += phase.epochs
        for name, values in result.history.items():
            history.setdefault(name, []).extend(values)
        if model.stop_training:  # a callback has ended it, and means the whole run
            break
    return history
