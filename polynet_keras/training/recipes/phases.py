"""Gradual unfreezing: the phases in which a run trains more and more of the network, as values."""

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from polynet_keras.basics.checks import check_integer, check_number, plain_numbers
from polynet_keras.models.parts import PARTS, check_part


@dataclass(frozen=True)
class PhaseSettings:
    """A phase of a run.

    Attributes:
        frozen_through: the last part of the network that is not trained; None if all of it is trained.
        epochs: number of epochs.
        learning_rate: its highest; None for the schedule's own.

    Raises:
        ValueError: a value is out of range.

    Examples:
        >>> head = PhaseSettings("stage_c", epochs=2, learning_rate=0.01)
        >>> recipe = PRESETS["finetune"].recipe.replaced({"start.unfreezing": [head]})
        >>> [(phase.frozen_through, phase.epochs) for phase in recipe.phases]
        [('stage_c', 2), ('stage_b', 8)]
    """

    frozen_through: str | None
    epochs: int
    learning_rate: float | None = None

    def __post_init__(self):
        plain_numbers(self)
        if self.frozen_through is not None:
            check_part("unfreezing: frozen_through", self.frozen_through)
        check_integer("unfreezing: epochs", self.epochs, at_least=1)
        if self.learning_rate is not None:
            check_number("unfreezing: learning_rate", self.learning_rate, above=0)


def checked_unfreezing(value: object, frozen_through: str | None) -> tuple[PhaseSettings, ...]:
    """Checks the phases before a run's last one, given as `PhaseSettings` or, from JSON, as objects with their fields.

    Args:
        value: the phases, in order.
        frozen_through: the last frozen part of the last phase.

    Raises:
        ValueError: the phases are invalid, or one does not train more than the one before it.
    """
    fields = [field.name for field in dataclasses.fields(PhaseSettings)]
    phases = []
    for one in value if isinstance(value, Sequence) and not isinstance(value, str) else [value]:
        if isinstance(one, Mapping) and {"frozen_through", "epochs"} <= set(one) <= set(fields):
            one = PhaseSettings(**one)
        if not isinstance(one, PhaseSettings):
            raise ValueError(f"unfreezing={value!r} must be a list of phases, each with {', '.join(fields)}")
        phases.append(one)
    ends = [*(phase.frozen_through for phase in phases), frozen_through]
    for before, after in itertools.pairwise(ends):
        if before is None or before == PARTS[-1] or (after is not None and PARTS.index(after) >= PARTS.index(before)):
            raise ValueError(
                f"unfreezing goes from frozen_through={before!r} to {after!r}: each phase must train something, and "
                "the next one more; the last one is that of frozen_through itself"
            )
    return tuple(phases)


def phases_of(unfreezing: Sequence[PhaseSettings], frozen_through: str | None, epochs: int) -> list[PhaseSettings]:
    """Returns all phases of a run: those of `unfreezing`, and a last one with the remaining epochs."""
    return [*unfreezing, PhaseSettings(frozen_through, epochs - sum(phase.epochs for phase in unfreezing))]
