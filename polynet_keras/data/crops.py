"""The crops of an image for a network: 1, 10 or 144 of them, as boxes and as pixels."""

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np

from polynet_keras.data.protocol import Preprocessing, half_to_even

CROPS = (1, 10, 144)


def check_crops(name: str, crops: int) -> None:
    """Raises a `ValueError` unless `crops` is one of `CROPS`."""
    if crops not in CROPS:
        raise ValueError(f"{name}={crops!r} must be one of {', '.join(map(str, CROPS))}")


SCALES = (256, 288, 320, 352)
"""GoogLeNet's sizes of the shorter side, for crops of `SCALES_SIZE`."""
SCALES_SIZE = 224

Box = tuple[int, int, int, int]


def least_side(preprocessing: Preprocessing, crops: int) -> int | None:
    """Returns `Preprocessing.least_side` for an image with this number of crops."""
    if preprocessing.least_side is None or crops != 144:
        return preprocessing.least_side
    return _shorter_side(preprocessing, max(SCALES))


def _shorter_side(preprocessing: Preprocessing, scale: int) -> int:
    return round(preprocessing.image_size * scale / SCALES_SIZE)


@dataclass(frozen=True)
class Crop:
    """The part of an image in one view.

    Attributes:
        resized: height and width, in pixels, of the whole image after resizing.
        box: (top, left, bottom, right) in the resized image; a square. A box larger than the network's input is itself
            resized to the input.
        mirrored: whether left and right are swapped at the end.
    """

    resized: tuple[int, int]
    box: Box
    mirrored: bool


def crop_plan(height: int, width: int, preprocessing: Preprocessing, crops: int) -> tuple[Crop, ...]:
    """Returns the crops of an image of this size.

    1 is the crop of the protocol. 10 are the corners and the centre of the image resized by the protocol, and their
    mirror images (Krizhevsky et al., NIPS 2012). They come from the whole resized image, as in torchvision's `TenCrop`;
    the paper cuts out a square first. 144 are GoogLeNet's (arXiv:1409.4842, section 7). The shorter side is resized to
    each of four scales: the paper's for 224, in proportion to `image_size`. Each resized image gives the left, centre
    and right square (top, centre and bottom if it is higher than wide). Each square gives the corners, the centre and
    the whole square, resized, and their mirror images. The three squares of a square image are the same.

    Margins are halved as in `Preprocessing`. So the boxes are their own mirror image, except that boxes centred in an
    odd margin are half a pixel off the middle.

    Args:
        height: height of the image, in pixels.
        width: width of the image, in pixels.
        preprocessing: gives the size of the crops and, for 1 and 10 crops, the resizing of the image.
        crops: one of `CROPS`.

    Returns:
        The crops by scale, ascending; by square, left or top first; original, then mirrored; by place: top left, top
        right, bottom left, bottom right, centre, square.

    Raises:
        ValueError: `crops` is another number, or the image is so narrow that it would be too large when resized.

    Examples:
        >>> plan = crop_plan(200, 300, Preprocessing(64, 72), crops=10)
        >>> len(plan)
        10
        >>> plan[0]
        Crop(resized=(72, 72), box=(0, 0, 64, 64), mirrored=False)
    """
    check_crops("crops", crops)
    size = preprocessing.image_size
    if crops != 144:
        resized = preprocessing.resized_shape(height, width)
        if crops == 1:
            return (Crop(resized, preprocessing.crop_box(*resized), mirrored=False),)
        return _both_ways(resized, _corners_and_centre((0, 0, *resized), size))
    plan: tuple[Crop, ...] = ()
    for scale in SCALES:
        shorter = _shorter_side(preprocessing, scale)
        at_scale = dataclasses.replace(preprocessing, resize_size=shorter, resize="shorter_side")
        resized = at_scale.resized_shape(height, width)
        for square in _squares(*resized):
            plan += _both_ways(resized, [*_corners_and_centre(square, size), square])
    return plan


def _squares(height: int, width: int) -> list[Box]:
    """Returns left, centre and right square of a wide image, or top, centre and bottom square of a high one."""
    side, margin = min(height, width), abs(width - height)
    starts = (0, half_to_even(margin), margin)
    if height > width:
        return [(start, 0, start + side, side) for start in starts]
    return [(0, start, side, start + side) for start in starts]


def _corners_and_centre(region: Box, size: int) -> list[Box]:
    top, left, bottom, right = region
    low, far = bottom - size, right - size
    middle = top + half_to_even(low - top), left + half_to_even(far - left)
    starts = [(top, left), (top, far), (low, left), (low, far), middle]
    return [(y, x, y + size, x + size) for y, x in starts]


def _both_ways(resized: tuple[int, int], boxes: Sequence[Box]) -> tuple[Crop, ...]:
    return tuple(Crop(resized, box, mirrored) for mirrored in (False, True) for box in boxes)


def views(image: np.ndarray, preprocessing: Preprocessing, plan: Sequence[Crop]) -> np.ndarray:
    """Returns the crops of one image, with values 0 to 255; a single one is `Preprocessing.crop`.

    Args:
        image: uint8 array (height, width, channels).
        preprocessing: the protocol.
        plan: the result of `crop_plan` for an image of this size.

    Returns:
        float32 array (crops, image_size, image_size, channels), in the order of the plan; not yet normalized.
    """
    size = preprocessing.image_size
    result = np.empty((len(plan), size, size, image.shape[2]), "float32")
    for i, view in enumerate(each_view(image, preprocessing, plan)):
        result[i] = view
    return result


def each_view(image: np.ndarray, preprocessing: Preprocessing, plan: Iterable[Crop]) -> Iterator[np.ndarray]:
    """Yields the views of a plan for this image one by one: float32 arrays (image_size, image_size, channels)."""
    size = preprocessing.image_size
    for shape, group in groupby(plan, lambda crop: crop.resized):
        resized = preprocessing.resized(image, shape)
        cuts: dict[Box, np.ndarray] = {}
        for crop in group:
            if crop.box not in cuts:
                top, left, bottom, right = crop.box
                cut = resized[top:bottom, left:right]
                cuts[crop.box] = cut if bottom - top == size else preprocessing.resized(cut, (size, size))
            yield cuts[crop.box][:, ::-1] if crop.mirrored else cuts[crop.box]
