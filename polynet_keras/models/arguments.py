"""Which images the network takes, said before any layer is built."""

from polynet_keras.basics.checks import is_integer

MIN_SIZE = 75
"""The smallest side of an image, in pixels: below it nothing is left after the second reduction."""

CHANNELS = (1, 3, 4)


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
        integer = is_integer(size)
        if axis == "channels" and (not integer or size not in CHANNELS):
            raise ValueError(f"{wanted}; got {shape}, that is {size} channels")
        if axis != "channels" and size is not None and (not integer or size < MIN_SIZE):
            raise ValueError(f"{wanted}; got {shape}")
