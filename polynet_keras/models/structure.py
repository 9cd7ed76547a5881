"""Structures: which residual units each of the three stages holds, as a value with a text form.

The notation is three stages split by `|`, each `n x [module, module, ...]`, where a module is a name such as
`poly-3` or a polynomial such as `I + F + GF`:

    10 x [2-way] | 10 x [poly-3, 2-way] | 5 x [poly-3, 2-way]
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from polynet_keras.basics.checks import is_integer
from polynet_keras.models.polynomial import NAMED, Polynomial, PolynomialSyntaxError

STAGES = ("a", "b", "c")
"""The stages, in the order in which an image passes them."""

MAX_MODULES = 1000
"""The most residual units a stage may hold: a slip of the keyboard must not start to build a million layers."""

_STAGE = re.compile(r"\s*(?P<repeats>\d+)\s*[x×]\s*\[(?P<modules>[^\[\]]*)\]\s*")


@dataclass(frozen=True)
class Structure:
    """The residual units of a network, stage by stage.

    Two structures are equal when they hold the same units in the same order, however they were written. `str()`
    gives the canonical notation and `Structure.parse(str(s)) == s`.

    Args:
        stages: three tuples of `Polynomial`: the units of stage A, B and C.

    Raises:
        ValueError: not three stages, or a stage with no unit or more than `MAX_MODULES`.
    """

    stages: tuple[tuple[Polynomial, ...], ...]

    def __post_init__(self):
        if isinstance(self.stages, str) or any(isinstance(stage, (str, Polynomial)) for stage in self.stages):
            raise ValueError(
                f"stages={self.stages!r} must be three sequences of Polynomial; see Structure.parse for texts"
            )
        object.__setattr__(self, "stages", tuple(map(tuple, self.stages)))
        if any(not isinstance(module, Polynomial) for stage in self.stages for module in stage):
            raise ValueError(f"stages={self.stages!r} must hold nothing but Polynomial; see Structure.parse for texts")
        if len(self.stages) != len(STAGES):
            raise ValueError(f"a structure has {len(STAGES)} stages; got {len(self.stages)}")
        for stage, modules in zip(STAGES, self.stages, strict=True):
            if not 1 <= len(modules) <= MAX_MODULES:
                raise ValueError(f"stage {stage.upper()} must hold 1 to {MAX_MODULES} modules; got {len(modules)}")

    @classmethod
    def parse(cls, text: "str | Structure") -> "Structure":
        """Reads a name of `STRUCTURES` (`"polynet-g5"`) or the notation of this module; passes a `Structure` on.

        Raises:
            PolynomialSyntaxError: the text is neither; the message marks the position of the fault.
            ValueError: `text` is no string, or a name that is not known.
        """
        if isinstance(text, Structure):
            return text
        if isinstance(text, str):
            if text.strip().lower() in STRUCTURES:
                return STRUCTURES[text.strip().lower()]
            if "[" in text or "|" in text:
                try:
                    return cls(_parse_stages(text))
                except PolynomialSyntaxError as error:
                    raise PolynomialSyntaxError(f"structure: {error.reason}", text, error.position) from None
        raise ValueError(
            f"structure={text!r} is not known. It is one of {', '.join(STRUCTURES)}, or a notation such as "
            "'2 x [ir] | 3 x [I + F + GF] | 1 x [2-way]'"
        )

    @classmethod
    def inception_resnet(cls, depths: Sequence[int]) -> "Structure":
        """The structure of Inception-ResNet: `depths` (a, b, c) counts the `I + F` units of the stages."""
        if isinstance(depths, str) or not isinstance(depths, Iterable) or len(tuple(depths)) != len(STAGES):
            raise ValueError(f"depths must be {len(STAGES)} integers such as (5, 10, 5); got {depths!r}")
        for depth in depths:
            if not is_integer(depth) or not 1 <= depth <= MAX_MODULES:
                raise ValueError(f"each of depths must be an integer from 1 to {MAX_MODULES}; got {depths!r}")
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
    """The stage as its shortest repeating pattern."""
    for period in range(1, len(modules) + 1):
        repeats, rest = divmod(len(modules), period)
        if not rest and modules == modules[:period] * repeats:
            break
    return f"{repeats} x [{', '.join(module.name for module in modules[:period])}]"


def _parse_stages(text: str) -> tuple[tuple[Polynomial, ...], ...]:
    parts = text.split("|")
    if len(parts) != len(STAGES):
        fault = len("|".join(parts[: len(STAGES)])) if len(parts) > len(STAGES) else len(text)
        raise PolynomialSyntaxError(f"expected {len(STAGES)} stages split by '|', got {len(parts)}", text, fault)
    stages = []
    offset = 0
    for part in parts:
        stages.append(_parse_stage(part, text, offset))
        offset += len(part) + 1
    return tuple(stages)


def _parse_stage(part: str, text: str, offset: int) -> tuple[Polynomial, ...]:
    match = _STAGE.fullmatch(part)
    if not match:
        fault = offset + len(part) - len(part.lstrip())
        raise PolynomialSyntaxError("expected a stage such as '10 x [poly-3, 2-way]'", text, fault)
    pattern = []
    position = offset + match.start("modules")
    for module in match["modules"].split(","):
        start = position + len(module) - len(module.lstrip())
        try:
            pattern.append(Polynomial.parse(module.strip()))
        except PolynomialSyntaxError as error:
            known = f"; a module is one of {', '.join(NAMED)}, or a polynomial such as I + F + GF"
            raise PolynomialSyntaxError(error.reason + known, text, start + error.position) from None
        position += len(module) + 1
    digits = match["repeats"].lstrip("0")
    repeats = int(digits[:5] or 0)
    if not 1 <= repeats * len(pattern) <= MAX_MODULES:
        fault = offset + match.start("repeats")
        raise PolynomialSyntaxError(f"a stage holds 1 to {MAX_MODULES} modules", text, fault)
    return tuple(pattern) * repeats


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
