"""The images that an int8 artifact is calibrated on, and others that it is compared on."""

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np

from polynet_keras.data.decoding import Unreadable
from polynet_keras.data.examples import Examples
from polynet_keras.data.pipeline import evaluation_batches, reading
from polynet_keras.data.protocol import Preprocessing

HELD_OUT = 200
"""Images, at most, that an int8 artifact is compared on; of data that has fewer than twice as many, half of it."""


@dataclass(frozen=True)
class Calibration:
    """What activations' ranges are read from, and other images of the same data, to compare the artifact on.

    Attributes:
        examples: of whose fixed shuffle the first images are calibrated on, and the last ones held out; their labels
            are not looked at.
        images: that are calibrated on, at most.
        keep_float: names of layers, or beginnings of names, that are left in float.
    """

    examples: Examples
    images: int = 300
    keep_float: tuple[str, ...] = ()

    def __post_init__(self):
        if self.images < 1:
            raise ValueError(f"images={self.images} of the calibration must be at least 1")
        if len(self.examples) < 4:
            raise ValueError(
                f"{self.examples.name} has {len(self.examples)} images; calibration takes at least 4, half of which "
                "are held out to compare on"
            )

    @property
    def _rest(self) -> int:
        """How many images are not held out."""
        return len(self.examples) - min(HELD_OUT, len(self.examples) // 2)

    def batches(self, preprocessing: Preprocessing) -> list[np.ndarray]:
        """The images, prepared, one by one: float32 (1, image_size, image_size, channels)."""
        return self._prepared(slice(None, min(self.images, self._rest)), preprocessing)

    def others(self, preprocessing: Preprocessing) -> np.ndarray:
        """The images that are held out: float32 (count, image_size, image_size, channels)."""
        return np.concatenate(self._prepared(slice(self._rest, None), preprocessing))

    def _prepared(self, part: slice, preprocessing: Preprocessing) -> list[np.ndarray]:
        chosen = np.sort(np.random.default_rng(0).permutation(len(self.examples))[part])
        examples = dataclasses.replace(self.examples, channels=preprocessing.channels)
        unreadable = Unreadable()
        batches = evaluation_batches(examples.subset(chosen, examples.name), preprocessing, 1, unreadable=unreadable)
        with reading(unreadable):
            return [images for images, *_ in batches.dataset.as_numpy_iterator()]

    def facts(self) -> dict[str, Any]:
        """For the card."""
        return {
            "data": self.examples.name,
            "images": min(self.images, self._rest),
            "keep_float": list(self.keep_float),
        }
