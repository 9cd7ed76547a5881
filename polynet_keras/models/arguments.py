"""Checks of the network's arguments, before any layer is built."""

from polynet_keras.basics.checks import check_choice, is_integer
from polynet_keras.basics.names import size_text

MIN_SIZE = 75
"""The smallest side of an image, in pixels: a smaller one leaves nothing after the second reduction."""

CHANNELS = (1, 3, 4)

REMAT = ("none", "stage_b", "all")
"""The residual units whose activations the backward pass may recompute instead of keeping."""


def check_remat(remat: str) -> None:
    """Raises a `ValueError` unless `remat` is one of `REMAT`."""
    check_choice("remat", remat, REMAT)


def check_image_shape(argument: str, shape: tuple, order: tuple[str, ...] = ("height", "width", "channels")) -> None:
    """Raises a `ValueError` that names `argument` unless `shape` is that of an image that the network takes.

    Args:
        argument: name of the argument that gave the shape.
        shape: 1, 3 or 4 channels, and sides that are `None` (any size) or at least `MIN_SIZE`.
        order: name of each axis.
    """
    wanted = f"{argument} must be ({', '.join(order)}) with 1, 3 or 4 channels and sides of at least {MIN_SIZE} px"
    if len(shape) != len(order):
        raise ValueError(f"{wanted}; got {size_text(shape)}")
    for axis, size in zip(order, shape, strict=True):
        integer = is_integer(size)
        if axis == "channels" and (not integer or size not in CHANNELS):
            raise ValueError(f"{wanted}; got {size_text(shape)}, that is {size} channels")
        if axis != "channels" and size is not None and (not integer or size < MIN_SIZE):
            raise ValueError(f"{wanted}; got {size_text(shape)}")
