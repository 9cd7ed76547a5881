"""Fine-tuning: freezing the network up to a part, and training in phases that unfreeze more and more of it."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras

from polynet_keras.basics.checks import check_integer
from polynet_keras.models.parts import PARTS, check_part, part_of


def freeze(model: keras.Model, through: str | None, normalizations: bool = False) -> None:
    """Freezes a network from the image up to a part, and unfreezes everything behind it.

    A frozen layer's variables do not train. A frozen batch normalization uses its moving statistics and does not update
    them, in training too. As always in Keras, call `compile` afterwards.

    Args:
        model: a model that `PolyNet` or `InceptionResNet` returned, with or without the top. If your model is built
            around it, pass the inner network.
        through: the last frozen part, one of `models.parts.PARTS`: "stem", "stage_a", "reduction_a", "stage_b",
            "reduction_b", "stage_c", "predictions"; `None` unfreezes everything.
        normalizations: whether to freeze the batch normalizations of all parts, including those behind `through`. With
            few images, or images unlike those before, their new statistics are worse than the old ones.

    Raises:
        ValueError: there is no such part, or the model has no parts.

    Examples:
        >>> model = InceptionResNet((1, 1, 1), width=0.1)
        >>> freeze(model, "stage_c")
        >>> [variable.path for variable in model.trainable_variables]
        ['predictions/kernel', 'predictions/bias']
    """
    if through is not None:
        check_part("through", through)
    frozen = PARTS[: PARTS.index(through) + 1] if through else ()
    parts = [(layer, part_of(layer.name)) for layer in model.layers]
    if not any(part for _, part in parts):
        raise ValueError(f"the model {model.name!r} has no layer of a PolyNet; pass the result of PolyNet()")
    model.trainable = True
    for layer, part in parts:
        if part:
            is_normalization = isinstance(layer, keras.layers.BatchNormalization)
            layer.trainable = part not in frozen and not (normalizations and is_normalization)


@dataclass(frozen=True)
class Phase:
    """A phase of a fine-tuning run.

    Attributes:
        frozen_through: the last frozen part, as in `freeze`.
        epochs: number of epochs.
        optimizer: the phase begins with a new optimizer of the same settings.
        normalizations_frozen: whether all batch normalizations are frozen too.

    Examples:
        >>> phases = [Phase("stage_c", 4, RMSprop(3e-3)), Phase(None, 8, RMSprop(3e-4), normalizations_frozen=True)]
        >>> sum(phase.epochs for phase in phases)
        12
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
    """Calls `compile` and `fit` for one phase after the other: gradual unfreezing.

    Epoch numbers continue through all phases, and so do the logs and schedules of callbacks.

    Args:
        model: model to train.
        phases: phases in order.
        *data: the first arguments of `model.fit`: a dataset, or images and labels. An iterator is refused, as one phase
            would use it up.
        compile_arguments: arguments of `model.compile`, without the optimizer: loss, metrics and so on.
        network: the network to freeze, if `model` is built around it; by default `model` itself.
        **fit_arguments: arguments of `model.fit`, without `epochs` and `initial_epoch`.

    Returns:
        The history as `fit(...).history` of one run: for each name, a list with one value per epoch.

    Raises:
        ValueError: there is no phase, an argument is one that the phases decide, the data is an iterator, or a phase
            has nothing to train.

    Examples:
        >>> model = InceptionResNet((1, 1, 1), width=0.1, input_shape=(75, 75, 3), classes=2)
        >>> images, labels = np.zeros((4, 75, 75, 3)), np.array([0, 1, 0, 1])
        >>> phases = [Phase("stage_c", 1, RMSprop(1e-3)), Phase(None, 2, RMSprop(1e-4))]
        >>> arguments = {"loss": "sparse_categorical_crossentropy"}
        >>> history = fit_in_phases(model, phases, images, labels, compile_arguments=arguments, verbose=0)
        >>> len(history["loss"])
        3
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
        # A new optimizer: the state of another phase, or of another model if phases are used twice, is not this one's.
        optimizer = type(phase.optimizer).from_config(phase.optimizer.get_config())
        model.compile(optimizer, **compile_arguments)
        result = model.fit(*data, initial_epoch=epoch, epochs=epoch + phase.epochs, **fit_arguments)
        epoch += phase.epochs
        for name, values in result.history.items():
            history.setdefault(name, []).extend(values)
        if model.stop_training:  # a callback has ended it, and means the whole run
            break
    return history
