"""The poster's ablation: Inception-ResNet against Poly and K-way modules, stage by stage, at equal depth and compute.

Source: the authors' poster on PolyNet, CVPR 2017: "Two effective ways to extend the structure: Poly and K-way, were
evaluated", and "PolyNet design yields higher accuracy than Inception-ResNet given the same computation budget".
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from polynet_keras.basics.checks import check_choice
from polynet_keras.models.polynomial import Polynomial, PolynomialSyntaxError
from polynet_keras.models.structure import STAGES, Structure

BASELINE = "ir"
MIXED = "mixed"
G5 = {"a": ("2-way",), "b": ("poly-3", "2-way"), "c": ("poly-3", "2-way")}
"""The modules of the poster's best net, in turn."""
STUDIED = (*(stage.upper() for stage in STAGES), MIXED)
"""Where a net has Poly or K-way modules: in one stage, or in all of them."""


@dataclass(frozen=True)
class Variant:
    """A net of the study.

    Attributes:
        name: such as `"B poly-3"`, or of an Inception-ResNet its depths, `"ir 2-4-2"`.
        structure: its residual units.
        stage: `"A"`, `"B"`, `"C"` or `"mixed"`, in which it is no Inception-ResNet; `""` if it is one.
        same_depth: the Inception-ResNet with as many residual units; `""` for one itself.
        same_compute: the Inception-ResNet of as many multiply-accumulates; `""` for one itself.
    """

    name: str
    structure: Structure
    stage: str = ""
    same_depth: str = ""
    same_compute: str = ""


def variants(depths: Sequence[int], modules: Sequence[str], stages: Sequence[str] = STUDIED) -> list[Variant]:
    """The nets of the study.

    For each module, and each of the three stages and all of them together ("mixed"), there is a net in which all
    residual units there are of that module; and one mixed as the poster's G5 is. They are as deep as the
    Inception-ResNet of `depths`. For each there is an Inception-ResNet of as many multiply-accumulates, which is
    deeper: a unit of n Inception blocks costs what n units of one do.

    Args:
        depths: residual units in stage A, B and C of the Inception-ResNet that all nets are compared with.
        modules: names or polynomials, without `ir`.
        stages: which of these nets: `"A"`, `"B"`, `"C"`, `"mixed"`.

    Raises:
        ValueError: there are no such depths, modules or stages.

    Examples:
        >>> print(", ".join(variant.name for variant in variants((1, 1, 1), ["2-way"])))
        ir 1-1-1, ir 2-1-1, A 2-way, ir 1-2-1, B 2-way, ir 1-1-2, C 2-way, ir 2-2-2, mixed 2-way, ir 2-3-3, mixed g5
    """
    base = Structure.inception_resnet(depths)
    try:
        names = list(dict.fromkeys(Polynomial.parse(module).name for module in modules))
    except PolynomialSyntaxError as error:
        raise ValueError(f"modules={error}") from None
    if not names or BASELINE in names:
        raise ValueError(f"modules={','.join(modules)!r} must be one or more, such as poly-2, and not {BASELINE}")
    if not stages:
        raise ValueError(f"stages={list(stages)!r} must name one or more of {', '.join(STUDIED)}")
    for stage in stages:
        check_choice("stages", stage, STUDIED)
    patterns: list[tuple[str, str, dict[str, tuple[str, ...]]]] = []
    for stage in (stage for stage in STUDIED if stage in stages):
        replaced = STAGES if stage == MIXED else (stage.lower(),)
        patterns += [(stage, name, dict.fromkeys(replaced, (name,))) for name in names]
    if MIXED in stages:
        patterns.append((MIXED, "g5", G5))
    found = {base: Variant(_inception_resnet_name(base), base)}
    for stage, name, pattern in patterns:
        structure = _replaced(base, pattern)
        equal = Structure.inception_resnet([sum(map(_blocks, units)) for units in structure.stages])
        found.setdefault(equal, Variant(_inception_resnet_name(equal), equal))
        found[structure] = Variant(f"{stage} {name}", structure, stage, found[base].name, found[equal].name)
    return list(found.values())


def _replaced(base: Structure, pattern: Mapping[str, Sequence[str]]) -> Structure:
    """The structure with other units: in a stage of the pattern, its modules in turn."""
    stages = []
    for stage, units in zip(STAGES, base.stages, strict=True):
        modules = [Polynomial.parse(module) for module in pattern.get(stage, ())]
        stages.append(tuple(modules[i % len(modules)] for i in range(len(units))) if modules else units)
    return Structure(tuple(stages))


def _blocks(unit: Polynomial) -> int:
    """How often a unit applies an Inception block."""
    return len(unit.applications)


def _inception_resnet_name(structure: Structure) -> str:
    return f"{BASELINE} {'-'.join(str(len(units)) for units in structure.stages)}"
