"""Fine-tuning: freezing the network up to a part, and training it in phases that unfreeze more and more of it."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras

from polynet_keras.basics.checks import check_integer
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
        optimizer: of this phase, which begins with a new one of the same settings.
        normalizations_frozen: whether all batch normalizations are frozen too.
    """

    frozen_through: str | None
    epochs: int
    optimizer: keras.optimizers.Optimizer
    normalizations_frozen: bool = False

    def __post_init__(self):
        if self.frozen_through is not None:
            check_part("frozen_through", self.frozen_through)
        check_integer("epochs", self.epochs, 1)
        if not isinstance(self.optimizer, keras.optimizers.Optimizer):
            raise ValueError(f"optimizer must be a Keras optimizer; got {type(self.optimizer).__name__}")


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
        phases: in order.
        *data: what `model.fit` takes first: a dataset, or images and labels; not an iterator, which one phase uses up.
        compile_arguments: of `model.compile`, without the optimizer: loss, metrics and so on.
        network: what is frozen, where `model` is built around it; else `model` itself.
        **fit_arguments: of `model.fit`, without `epochs` and `initial_epoch`.

    Returns:
        What `fit(...).history` would be of one run: for each name, a list with a value an epoch.

    Raises:
        ValueError: no phase, an argument that the phases decide, an iterator, or a phase with nothing to train.
    """
    if isinstance(phases, Phase) or not phases or not all(isinstance(phase, Phase) for phase in phases):
        raise ValueError(f"phases must be a list of at least one Phase; got {type(phases).__name__}")
    if any(isinstance(part, Iterator) for part in data):
        raise ValueError("the data is an iterator, which the first phase would use up; pass a dataset or arrays")
    for name in ("optimizer", "epochs", "initial_epoch"):
        if name in compile_arguments or name in fit_arguments:
            raise ValueError(f"{name} is decided by the phases; leave it out")
    history: dict[str, list] = {}
    epoch = 0
    for phase in phases:
        freeze(network or model, phase.frozen_through, phase.normalizations_frozen)
        if not model.trainable_variables:
            raise ValueError(f"frozen_through={phase.frozen_through!r} leaves nothing to train in {model.name!r}")
        # Anew: state of another phase, or of another model where phases are used twice, is not this one's.
        optimizer = type(phase.optimizer).from_config(phase.optimizer.get_config())
        model.compile(optimizer, **compile_arguments)
        result = model.fit(*data, initial_epoch=epoch, epochs=epoch + phase.epochs, **fit_arguments)
        epoch += phase.epochs
        for name, values in result.history.items():
            history.setdefault(name, []).extend(values)
        if model.stop_training:  # a callback has ended it, and means the whole run
            break
    return history
