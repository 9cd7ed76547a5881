"""The parts of the network from the image to the classes, identified by the names of its layers."""

from collections.abc import Iterable, Mapping
from typing import Protocol, TypeVar

from polynet_keras.basics.checks import check_choice, check_number

PARTS = ("stem", "stage_a", "reduction_a", "stage_b", "reduction_b", "stage_c", "predictions")


def part_of(layer_name: str) -> str | None:
    """Returns the part that a layer belongs to by its name; `None` for layers without weights, and for a user's own."""
    for part in PARTS:
        if layer_name == part or layer_name.startswith(f"{part}_"):
            return part
    return None


class Named(Protocol):
    @property
    def name(self) -> str: ...


AnyNamed = TypeVar("AnyNamed", bound=Named)


def ends_of_parts(layers: Iterable[AnyNamed]) -> dict[str, AnyNamed]:
    """Returns the last layer of each part, by part. The layers come in the order of computation."""
    return {part: layer for layer in layers if (part := part_of(layer.name)) is not None}


def check_part(argument: str, part: str) -> None:
    """Raises a `ValueError` that names the argument unless `part` is one of `PARTS`."""
    check_choice(argument, part, PARTS)


def check_factors(argument: str, factors: Mapping[str, float] | None) -> None:
    """Raises a `ValueError` that names the argument unless `factors` maps parts to numbers ≥ 0."""
    if factors is None:
        return
    if not isinstance(factors, Mapping):
        raise ValueError(f"{argument}={factors!r} must map parts to factors")
    for part, factor in factors.items():
        check_part(argument, part)
        check_number(f"{argument}[{part!r}]", factor, at_least=0)
