"""Maps of `explain` as pictures: in colours, on the part of an image that the model gets."""

import numpy as np

from polynet_keras.data.protocol import Preprocessing

COLOURS = "turbo"
"""matplotlib's colour map: blue for low, red for high."""
STRENGTH = 0.6
"""Share of the colour where a map is 1; where it is 0, the image is unchanged."""


def shown_part(image: np.ndarray, preprocessing: Preprocessing, longest: int) -> np.ndarray:
    """Returns the part of an image that the model gets, with the image's own aspect ratio.

    Args:
        image: uint8 array (height, width, channels).
        preprocessing: the protocol, which cuts off a margin.
        longest: longest side of the picture, in pixels.

    Returns:
        uint8 array (height, width, 3).

    Raises:
        ValueError: the image is too narrow for the protocol.
    """
    from PIL import Image

    height, width = image.shape[:2]
    high, wide = preprocessing.resized_shape(height, width)
    top, left, bottom, right = preprocessing.crop_box(high, wide)
    box = (left * width / wide, top * height / high, right * width / wide, bottom * height / high)
    sides = box[2] - box[0], box[3] - box[1]
    scale = longest / max(sides)
    size = max(1, round(sides[0] * scale)), max(1, round(sides[1] * scale))
    picture = Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).convert("RGB")
    # Scans of a few pixels are enlarged as they are.
    filter_ = Image.Resampling.NEAREST if scale > 2 else Image.Resampling.BICUBIC
    return np.asarray(picture.resize(size, filter_, box=box))


def overlay(picture: np.ndarray, map_: np.ndarray) -> np.ndarray:
    """Blends a picture with a map of it.

    Args:
        picture: uint8 array (height, width, 3), as from `shown_part`.
        map_: float array of any height and width, 0 to 1.

    Returns:
        uint8 array of the picture's shape.
    """
    from matplotlib import colormaps
    from PIL import Image

    height, width = picture.shape[:2]
    large = Image.fromarray(map_.astype("float32")).resize((width, height), Image.Resampling.BILINEAR)
    values = np.asarray(large).clip(0, 1)
    colours = 255 * colormaps[COLOURS](values)[..., :3]
    share = STRENGTH * values[..., np.newaxis]
    return np.rint(picture * (1 - share) + colours * share).astype("uint8")
