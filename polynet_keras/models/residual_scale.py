"""The factor on the residual paths of each module, and the survival schedule of the released network."""

from collections.abc import Sequence

from polynet_keras.basics.checks import is_number
from polynet_keras.basics.names import number_of

MIN_SURVIVAL = 0.7
"""Survival probability of the deepest module of the released network; that of the first is 1."""


def linear(first: float, last: float, count: int) -> tuple[float, ...]:
    """Returns `count` values from `first` to `last` in equal steps (`first` alone if `count` is 1)."""
    return tuple(first + (last - first) * i / max(count - 1, 1) for i in range(count))


def scales_and_survival(
    residual_scale: float | Sequence[float] | None, modules: int
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Returns the scales and the survival probabilities of the modules, each in order of depth.

    Module l of L multiplies its residual paths by `scale[l] · survival[l]` at inference, and also in training while
    its stochastic paths are inactive.

    Args:
        residual_scale: `None` uses the factors of the released network: scale 1 and the linear survival schedule of
            stochastic depth, 1 − 0.3·l/(L−1), which its authors multiplied in at inference. A number is one scale for
            all modules. A pair is a linear schedule from the first to the last module. A longer sequence has one scale
            per module. With all but `None`, the survival probability is 1.
        modules: L, the number of modules.

    Raises:
        ValueError: `residual_scale` is none of the above, or a scale is not a finite number ≥ 0.
    """
    ones = (1.0,) * modules
    if residual_scale is None:
        return ones, linear(1.0, MIN_SURVIVAL, modules)
    if isinstance(residual_scale, Sequence) and not isinstance(residual_scale, str):
        scales = tuple(residual_scale)
        if len(scales) not in (2, modules):
            raise ValueError(
                f"residual_scale={', '.join(map(str, scales))} has {number_of(len(scales), 'value')}; a sequence has 2 "
                f"(the first and the last module's, linear between) or one for each of the {modules} modules"
            )
    else:
        scales = (residual_scale,) * modules
    for scale in scales:
        if not is_number(scale) or scale < 0:
            given = ", ".join(map(repr, scales)) if isinstance(residual_scale, Sequence) else repr(residual_scale)
            raise ValueError(
                f"residual_scale={given} must be a number ≥ 0 such as 0.3, a pair of the first and the last, or a "
                "sequence of one number for each module"
            )
    if len(scales) == modules:
        return tuple(map(float, scales)), ones
    return linear(float(scales[0]), float(scales[1]), modules), ones
