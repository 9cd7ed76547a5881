"""The plan of an insertion: the unit of a trained network for each unit of a grown one, before any network is built."""

import math
from dataclasses import dataclass

import numpy as np

from polynet_keras.basics.checks import check_choice
from polynet_keras.basics.names import number_of
from polynet_keras.models.polynomial import Polynomial
from polynet_keras.models.structure import STAGES, Structure

POSITIONS = ("interleaved", "appended")
NEW_PATHS = ("xavier", "zero")


@dataclass(frozen=True)
class Unit:
    """A residual unit of a network.

    Attributes:
        name: the prefix of its layers' names, such as `"stage_b_03"`.
        module: its polynomial.
        source: the trained network's unit that it begins with; `None` for a new one.
    """

    name: str
    module: Polynomial
    source: "Unit | None" = None

    @property
    def new_terms(self) -> tuple[str, ...]:
        """The residual paths that the trained network does not have."""
        known = self.source.module.terms if self.source else ()
        return tuple(term for term in self.module.terms if term not in known)

    def __str__(self) -> str:
        if self.source is None:
            return f"{self.name}  {self.module.name}  new"
        new = f", new: {', '.join(self.new_terms)}" if self.new_terms else ""
        return f"{self.name}  {self.module.name}  from {self.source.name} ({self.source.module.name}){new}"


@dataclass(frozen=True)
class InsertionPlan:
    """The unit of the trained network that each unit of the grown one begins with; `str()` has a line for each."""

    units: tuple[Unit, ...]

    def __str__(self) -> str:
        return "\n".join(map(str, self.units))


def plan_insertion(source: str | Structure, target: str | Structure, positions: str = "interleaved") -> InsertionPlan:
    """Places the units of a trained network in a larger one.

    A unit can become one that has all its paths and more. `"interleaved"` takes the fitting places that spread the
    units most evenly: unit i of n as near as possible to place i·m/n of m. `"appended"` leaves the new units at the
    end.

    Args:
        source: the trained network's structure, or its name or notation.
        target: the structure of the larger network.
        positions: `"interleaved"` or `"appended"`.

    Raises:
        ValueError: the structures are invalid, or the units of a stage find no places.

    Examples:
        >>> print(plan_insertion("1 x [ir] | 1 x [ir] | 1 x [ir]", "1 x [2-way] | 2 x [ir] | 1 x [ir]"))
        stage_a_01  2-way  from stage_a_01 (ir), new: G
        stage_b_01  ir  from stage_b_01 (ir)
        stage_b_02  ir  new
        stage_c_01  ir  from stage_c_01 (ir)
    """
    check_choice("positions", positions, POSITIONS)
    source, target = Structure.parse(source), Structure.parse(target)
    units = []
    for stage, old, new in zip(STAGES, source.stages, target.stages, strict=True):
        places = _places(stage, old, new, positions)
        for number, module in enumerate(new):
            name, found = unit_name(stage, number), places.get(number)
            units.append(Unit(name, module, None if found is None else Unit(unit_name(stage, found), old[found])))
    return InsertionPlan(tuple(units))


def _places(stage: str, old: tuple[Polynomial, ...], new: tuple[Polynomial, ...], positions: str) -> dict[int, int]:
    """Returns the old unit's number by place in the new stage."""
    if len(new) < len(old):
        raise ValueError(
            f"stage {stage.upper()} has {number_of(len(old), 'unit')}, and the target's has {len(new)}: nets only grow"
        )
    # cost[i][j]: of the first i units in the first j places.
    cost = np.full((len(old) + 1, len(new) + 1), math.inf)
    cost[0] = 0.0
    for i, module in enumerate(old, 1):
        wanted = i - 1 if positions == "appended" else (i - 1) * len(new) / len(old)
        for j in range(i, len(new) + 1):
            fits = set(module.terms) <= set(new[j - 1].terms)
            here = cost[i - 1, j - 1] + (j - 1 - wanted) ** 2 if fits else math.inf
            cost[i, j] = min(cost[i, j - 1], here)
        if math.isinf(cost[i, len(new)]):
            raise ValueError(
                f"{unit_name(stage, i - 1)} ({module.name}) and the {i - 1} units of its stage before it do not fit "
                "into the target in their order: a unit becomes one that has all its paths"
            )
    places, j = {}, len(new)
    for i in range(len(old), 0, -1):
        while cost[i, j - 1] == cost[i, j]:
            j -= 1
        j -= 1
        places[j] = i - 1
    return places


def unit_name(stage: str, number: int) -> str:
    return f"stage_{stage}_{number + 1:02d}"
