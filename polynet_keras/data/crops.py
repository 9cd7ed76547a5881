"""The crops of an image that are shown to a network: 1, 10 or 144 of them, as boxes and as pixels."""

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
    """As `Preprocessing.least_side`, of an image that is cropped so many times."""
    if preprocessing.least_side is None or crops != 144:
        return preprocessing.least_side
    return _shorter_side(preprocessing, max(SCALES))


def _shorter_side(preprocessing: Preprocessing, scale: int) -> int:
    return round(preprocessing.image_size * scale / SCALES_SIZE)


@dataclass(frozen=True)
class Crop:
    """Which part of an image one view shows.

    Attributes:
        resized: height and width, in pixels, that the whole image is resized to.
        box: (top, left, bottom, right) in the resized image; a square. One that is larger than the network's input is
            itself resized to that.
        mirrored: whether left and right change places, last of all.
    """

    resized: tuple[int, int]
    box: Box
    mirrored: bool


def crop_plan(height: int, width: int, preprocessing: Preprocessing, crops: int) -> tuple[Crop, ...]:
    """The crops of an image of a size.

    1 is the crop of the protocol. 10 are the corners and the centre of the image resized as the protocol says, mirrored
    too (Krizhevsky et al., NIPS 2012; of the whole resized image, as torchvision's `TenCrop` takes them, where they cut
    out a square first). 144 are GoogLeNet's (arXiv:1409.4842, section 7): the shorter side is brought to each of
    four scales, in proportion to `image_size` those of the paper for 224; of each image the left, centre and right
    square are taken (of one that is higher than wide the top, centre and bottom one); of each square the corners, the
    centre and the whole square, resized; mirrored too. Of a square image the three squares are the same.

    Margins are halved as in `Preprocessing`. So the boxes are their own mirror image, except that what is centred in an
    odd margin is half a pixel off the middle.

    Args:
        height: of the image, in pixels.
        width: of the image, in pixels.
        preprocessing: gives the size of the crops and, for 1 and 10 of them, how the image is resized.
        crops: one of `CROPS`.

    Returns:
        The crops by scale, ascending; by square, left or top first; first as they are, then mirrored; by place: top
        left, top right, bottom left, bottom right, centre, square.

    Raises:
        ValueError: another number of crops, or an image so narrow that it would be too large when resized.
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
    """Left, centre and right of a wide image, top, centre and bottom of a high one."""
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
    """The crops of one image, still of values 0 to 255; a single one is `Preprocessing.crop`.

    Args:
        image: uint8 array (height, width, channels).
        preprocessing: the protocol.
        plan: what `crop_plan` gives for an image of this size.

    Returns:
        float32 array (crops, image_size, image_size, channels), in the order of the plan; to be normalized.
    """
    size = preprocessing.image_size
    result = np.empty((len(plan), size, size, image.shape[2]), "float32")
    for i, view in enumerate(each_view(image, preprocessing, plan)):
        result[i] = view
    return result


def each_view(image: np.ndarray, preprocessing: Preprocessing, plan: Iterable[Crop]) -> Iterator[np.ndarray]:
    """The views of a plan of this image, one after the other: float32 arrays (image_size, image_size, channels)."""
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
