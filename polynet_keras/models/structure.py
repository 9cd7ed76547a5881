"""Structures: which residual units each of the three stages holds, as a value with a text form.

The notation is three stages split by `|`, each `n x [module, module, ...]`, where a module is a name such as
`poly-3` or a polynomial such as `I + F + GF`:

    10 x [2-way] | 10 x [poly-3, 2-way] | 5 x [poly-3, 2-way]
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from polynet_keras.basics.checks import is_integer
from polynet_keras.models.near_notation import near_structure
from polynet_keras.models.polynomial import NAMED, Polynomial, PolynomialSyntaxError, parse_module

STAGES = ("a", "b", "c")
"""The stages, in the order in which an image passes them."""

MAX_MODULES = 1000
"""The most residual units that a stage may hold, so that a typing error does not build a million layers."""

_STAGE = re.compile(
    r"\s*(?P<count>\d*)\s*(?P<times>[x×]?)\s*(?P<opening>\[?)(?P<modules>[^\[\]]*)(?P<closing>\]?)\s*(?P<rest>.*)",
    re.DOTALL,
)
"""The parts of a stage. It matches any text: the parts may be missing."""
_AS = "as in '10 x [poly-3, 2-way]'"
_EXPECTED = {
    "count": f"expected the stage's count, {_AS}",
    "times": f"expected 'x' after the stage's count, {_AS}",
    "opening": f"expected '[' before the stage's modules, {_AS}",
    "closing": "expected ']' after the stage's modules",
}
"""The message for each missing part."""


@dataclass(frozen=True)
class Structure:
    """The residual units of a network, stage by stage.

    Two structures are equal when they hold the same units in the same order, however they were written. `str()`
    gives the canonical notation and `Structure.parse(str(s)) == s`.

    Args:
        stages: three tuples of `Polynomial`: the units of stage A, B and C.

    Raises:
        ValueError: there are not three stages, or a stage has no unit or more than `MAX_MODULES`.

    Examples:
        >>> structure = Structure.parse("10 x [2-way] | 10 x [poly-3, 2-way] | 5 x [poly-3, 2-way]")
        >>> structure == Structure.parse("polynet-g5")
        True
        >>> structure.module_count
        40
    """

    stages: tuple[tuple[Polynomial, ...], ...]

    def __post_init__(self):
        if isinstance(self.stages, str) or any(
            isinstance(stage, (str, Polynomial)) or not isinstance(stage, Iterable) for stage in self.stages
        ):
            raise ValueError("stages must be three sequences of Polynomial; Structure.parse reads texts")
        object.__setattr__(self, "stages", tuple(map(tuple, self.stages)))
        if any(not isinstance(module, Polynomial) for stage in self.stages for module in stage):
            raise ValueError("stages must hold nothing but Polynomial; Structure.parse reads texts")
        if len(self.stages) != len(STAGES):
            raise ValueError(f"a structure has {len(STAGES)} stages; got {len(self.stages)}")
        for stage, modules in zip(STAGES, self.stages, strict=True):
            if not 1 <= len(modules) <= MAX_MODULES:
                raise ValueError(f"stage {stage.upper()} must hold 1 to {MAX_MODULES} modules; got {len(modules)}")

    @classmethod
    def parse(cls, text: "str | Structure") -> "Structure":
        """Reads a name of `STRUCTURES` (`"polynet-g5"`) or this module's notation; returns a `Structure` unchanged.

        Raises:
            PolynomialSyntaxError: the text is neither; the message marks the fault and shows the nearest valid text.
            ValueError: `text` is not a string.
        """
        if isinstance(text, Structure):
            return text
        if not isinstance(text, str):
            raise ValueError(f"structure={text!r} is not a text: {_FORMS.format(', '.join(STRUCTURES))}")
        try:
            return _parse(text)
        except PolynomialSyntaxError as error:
            raise error.with_suggestion(near_structure, _parse, STRUCTURES, NAMED, argument="structure") from None

    @classmethod
    def inception_resnet(cls, depths: Sequence[int]) -> "Structure":
        """Returns the structure of Inception-ResNet: `depths` (a, b, c) counts the `I + F` units of the stages."""
        if isinstance(depths, str) or not isinstance(depths, Iterable) or len(tuple(depths)) != len(STAGES):
            raise ValueError(f"depths must be {len(STAGES)} integers such as 5, 10 and 5; got {_depths_text(depths)}")
        for depth in depths:
            if not is_integer(depth) or not 1 <= depth <= MAX_MODULES:
                raise ValueError(
                    f"each of depths must be an integer from 1 to {MAX_MODULES}; got {_depths_text(depths)}"
                )
        return cls(tuple((NAMED["ir"],) * depth for depth in depths))

    @property
    def module_count(self) -> int:
        """The number of residual units, over all stages."""
        return sum(map(len, self.stages))

    @property
    def stage_texts(self) -> tuple[str, ...]:
        """Each stage in the notation."""
        return tuple(map(_stage_text, self.stages))

    def __str__(self) -> str:
        return " | ".join(self.stage_texts)


def _stage_text(modules: tuple[Polynomial, ...]) -> str:
    """Writes the stage as its shortest repeating pattern."""
    for period in range(1, len(modules) + 1):
        repeats, rest = divmod(len(modules), period)
        if not rest and modules == modules[:period] * repeats:
            break
    return f"{repeats} x [{', '.join(module.name for module in modules[:period])}]"


def _parse(text: str) -> Structure:
    name = text.strip().lower()
    if name in STRUCTURES:
        return STRUCTURES[name]
    if "[" not in text and "|" not in text:
        raise PolynomialSyntaxError("unknown structure", text, 0, _FORMS.format(", ".join(STRUCTURES)))
    return Structure(tuple(_parse_stages(text)))


def _parse_stages(text: str) -> Iterator[tuple[Polynomial, ...]]:
    parts = text.split("|")
    offset = 0
    for part in parts[: len(STAGES)]:
        yield _parse_stage(part, text, offset)
        offset += len(part) + 1
    if len(parts) != len(STAGES):
        fault = min(offset, len(text)) if len(parts) < len(STAGES) else offset - 1
        raise PolynomialSyntaxError(f"expected {len(STAGES)} stages split by '|', got {len(parts)}", text, fault)


def _parse_stage(part: str, text: str, offset: int) -> tuple[Polynomial, ...]:
    """Returns the units of the stage `part`, which begins at `offset` in `text`."""

    def fault(reason: str, position: int, accepted: str = "") -> PolynomialSyntaxError:
        return PolynomialSyntaxError(reason, text, offset + position, accepted)

    end = len(part.rstrip())
    if not end:
        raise fault(f"expected a stage, {_AS}", 0)
    found = next(_STAGE.finditer(part))
    for name, reason in _EXPECTED.items():
        if not found[name]:
            raise fault(reason, min(found.start(name), end))
    if found["rest"].strip():
        raise fault("expected '|' or the end after ']'", found.start("rest"))
    if not found["modules"].strip():
        raise fault(f"a stage holds at least one module, {_AS}", found.start("modules"))
    pattern = []
    position = found.start("modules")
    for module in found["modules"].split(","):
        start = position + len(module) - len(module.lstrip())
        if not module.strip():
            raise fault("expected a module such as poly-3 or I + F + GF", start)
        try:
            pattern.append(parse_module(module.strip()))
        except PolynomialSyntaxError as error:
            raise fault(error.reason, start + error.position, error.accepted) from None
        position += len(module) + 1
    repeats = int(found["count"].lstrip("0")[:5] or 0)
    if not 1 <= repeats * len(pattern) <= MAX_MODULES:
        raise fault(f"a stage holds 1 to {MAX_MODULES} modules", found.start("count"))
    return tuple(pattern) * repeats


def _depths_text(depths: object) -> str:
    return ", ".join(map(str, depths)) if isinstance(depths, Iterable) and not isinstance(depths, str) else str(depths)


_FORMS = "a structure is {}, or a notation such as '2 x [ir] | 3 x [I + F + GF] | 1 x [2-way]'"
STRUCTURES = {
    "polynet-g5": Structure(
        (
            (NAMED["2-way"],) * 10,
            (NAMED["poly-3"], NAMED["2-way"]) * 10,
            (NAMED["poly-3"], NAMED["2-way"]) * 5,
        )
    ),
    "ir-5-10-5": Structure.inception_resnet((5, 10, 5)),
    "ir-10-20-10": Structure.inception_resnet((10, 20, 10)),
    "ir-20-56-20": Structure.inception_resnet((20, 56, 20)),
}
"""The networks of the poster's table by name."""
