"""Occlusion: a classifier's probabilities while a square hides one place of the image after the other."""

from collections.abc import Callable

import keras
import numpy as np

GRID = 8
"""Cells of an image in each direction; the square hides two by two of them, and moves by one."""
BATCH = 10
"""Images in one forward pass. One image needs 50: itself, and 7 by 7 with a square."""


def occlusion(
    probabilities: Callable[[np.ndarray], np.ndarray], images: np.ndarray, classes: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    """Returns by how much a class's probability falls when a cell is hidden.

    Args:
        probabilities: function that returns the probabilities of preprocessed images.
        images: float array, a batch of preprocessed images in Keras's data format.
        classes: integer array (batch,); `None` for the most probable ones.

    Returns:
        The probabilities of the images, float32 (batch, classes), and a float64 array (batch, GRID, GRID), ≥ 0: for
        each cell the mean over the squares that hide it.
    """
    whole, maps = [], []
    for i, image in enumerate(images):
        shown = _hidden(image)
        found = np.concatenate([probabilities(shown[at : at + BATCH]) for at in range(0, len(shown), BATCH)])
        whole.append(found[0])
        wanted = found[0].argmax() if classes is None else classes[i]
        falls = (found[0, wanted] - found[1:, wanted].astype("float64")).reshape(GRID - 1, GRID - 1)
        maps.append(np.maximum(_by_cell(falls), 0))
    return np.stack(whole), np.stack(maps)


def _hidden(image: np.ndarray) -> np.ndarray:
    """Returns an image, and the image with a square at each place: (50, ...)."""
    first = keras.config.image_data_format() == "channels_first"
    height, width = image.shape[1:] if first else image.shape[:2]
    colour = image.mean(axis=(1, 2) if first else (0, 1), keepdims=True)
    down, across = (np.linspace(0, side, GRID + 1).round().astype(int) for side in (height, width))
    shown = np.repeat(image[np.newaxis], 1 + (GRID - 1) ** 2, axis=0)
    for place, one in enumerate(shown[1:]):
        i, j = divmod(place, GRID - 1)
        rows, columns = slice(down[i], down[i + 2]), slice(across[j], across[j + 2])
        one[(slice(None), rows, columns) if first else (rows, columns)] = colour
    return shown


def _by_cell(falls: np.ndarray) -> np.ndarray:
    sums, squares = np.zeros((GRID, GRID)), np.zeros((GRID, GRID))
    for i, j in ((0, 0), (0, 1), (1, 0), (1, 1)):
        sums[i : i + GRID - 1, j : j + GRID - 1] += falls
        squares[i : i + GRID - 1, j : j + GRID - 1] += 1
    return sums / squares
