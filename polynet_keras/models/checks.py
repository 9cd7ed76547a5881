"""What the builders and the cost accept, said before any layer is built."""

import math
from numbers import Integral, Real

MIN_SIZE = 75
"""The smallest side of an image, in pixels: below it nothing is left after the second reduction."""

CHANNELS = (1, 3, 4)


def check_width(width: float) -> None:
    """Raises a `ValueError` unless `width` is a finite number > 0."""
    if isinstance(width, bool) or not isinstance(width, Real) or not math.isfinite(width) or width <= 0:
        raise ValueError(f"width={width!r} must be a finite number > 0, such as 0.5")


def check_classes(classes: int) -> None:
    """Raises a `ValueError` unless `classes` is an integer ≥ 1."""
    if isinstance(classes, bool) or not isinstance(classes, Integral) or classes < 1:
        raise ValueError(f"classes={classes!r} must be an integer ≥ 1")


def check_image_shape(argument: str, shape: tuple, order: tuple[str, ...] = ("height", "width", "channels")) -> None:
    """Raises a `ValueError` that names `argument` unless `shape` is that of an image that the network takes.

    Args:
        argument: what the shape was given as.
        shape: 1, 3 or 4 channels, and sides that are `None` (any size) or at least `MIN_SIZE`.
        order: what each axis is.
    """
    wanted = f"{argument} must be ({', '.join(order)}) with 1, 3 or 4 channels and sides of at least {MIN_SIZE} px"
    if len(shape) != len(order):
        raise ValueError(f"{wanted}; got {shape}")
    for axis, size in zip(order, shape, strict=True):
        integer = isinstance(size, Integral) and not isinstance(size, bool)
        if axis == "channels" and (not integer or size not in CHANNELS):
            raise ValueError(f"{wanted}; got {shape}, that is {size} channels")
        if axis != "channels" and size is not None and (not integer or size < MIN_SIZE):
            raise ValueError(f"{wanted}; got {shape}")
