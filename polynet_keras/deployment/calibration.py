"""The images for the calibration of an int8 artifact, and other images for its comparison."""

import dataclasses
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from absl import logging

from polynet_keras.basics.checks import check_integer, check_number
from polynet_keras.basics.names import number_of
from polynet_keras.data.examples import Examples
from polynet_keras.data.pipeline import evaluation_batches
from polynet_keras.data.protocol import Preprocessing
from polynet_keras.data.unreadable import Unreadable, reading
from polynet_keras.evaluation.loading import TrainedModel
from polynet_keras.evaluation.scoring import fitted_to

BATCH_SIZE = 32
"""Images per batch in the comparison."""

Labelled = tuple[np.ndarray, np.ndarray | None]
"""Preprocessed images, float32 (batch, image_size, image_size, channels), and their labels, int64 (batch,), if the
model knows their classes."""


@dataclass(frozen=True)
class Calibration:
    """Images for activation ranges, for the comparison of the artifact, and optionally for the choice of layers.

    Attributes:
        examples: training images: the first of their fixed shuffle calibrate; their labels are not used.
        held_out: images that the model was not trained on: the first of their fixed shuffle are used for the
            comparison.
        images: most images for the calibration.
        comparison_images: most images for the comparison.
        keep_float: names of layers, or beginnings of names, that stay in float.
        on_error: `"error"` or `"skip"`: how to handle images that cannot be read, as in `Recipe`.
        max_drop: percentage points of top-1 that int8 may lose: layers go back to float until it loses no more. This is
            measured on half of the held-out images (`comparison_images` of them at most), and the artifact is compared
            on the other half, which chose nothing. None: no layer goes back.

    Raises:
        ValueError: a number is out of range, there are no or too few images, or the held-out images are those of the
            calibration.

    Examples:
        >>> from polynet_keras.data import open_source
        >>> source = open_source(photos, seed=0)
        >>> calibration = Calibration(source.training, source.held_out, images=4)
        >>> len(calibration.batches(trained.preprocessing))
        4
    """

    examples: Examples
    held_out: Examples
    images: int = 300
    comparison_images: int = 1000
    keep_float: tuple[str, ...] = ()
    max_drop: float | None = None
    on_error: str = "error"

    def __post_init__(self):
        check_integer("images", self.images, 1)
        check_integer("comparison_images", self.comparison_images, 2)
        if self.max_drop is not None:
            check_number("max_drop", self.max_drop, at_least=0, below=100)
        if self.examples.fingerprint == self.held_out.fingerprint:
            raise ValueError(f"{self.examples.name} would be calibrated on and compared on; name other images for one")
        for examples, least in ((self.examples, 1), (self.held_out, 2 if self.max_drop is None else 4)):
            if len(examples) < least:
                raise ValueError(
                    f"{examples.name} has {number_of(len(examples), 'image')}; int8 needs at least {least}"
                )

    def batches(self, preprocessing: Preprocessing) -> list[np.ndarray]:
        """Returns the images for the calibration, preprocessed, each float32 (1, image_size, image_size, channels)."""
        chosen = _shuffled(self.examples)[: self.images]
        return [images for images, _ in self._prepared(_subset(self.examples, chosen, preprocessing), preprocessing, 1)]

    def to_compare(self, trained: TrainedModel) -> Iterator[Labelled]:
        """Yields batches of the images for the comparison."""
        shuffled = _shuffled(self.held_out)
        part = shuffled if self.max_drop is None else shuffled[len(shuffled) // 2 :]
        try:
            examples, known = fitted_to(trained, self.held_out), True
        except ValueError as error:
            logging.warning("the accuracy of int8 is not measured: %s", error)
            examples, known = self.held_out, False
        chosen = _subset(examples, part[: self.comparison_images], trained.preprocessing)
        for images, labels in self._prepared(chosen, trained.preprocessing, BATCH_SIZE):
            yield images, labels if known else None

    def to_choose(self, trained: TrainedModel) -> list[tuple[np.ndarray, np.ndarray]]:
        """Returns the images that decide which layers go back to float, one by one, in memory.

        Raises:
            ValueError: the model does not know their classes.
        """
        shuffled, examples = _shuffled(self.held_out), fitted_to(trained, self.held_out)
        chosen = _subset(examples, shuffled[: len(shuffled) // 2][: self.comparison_images], trained.preprocessing)
        return list(self._prepared(chosen, trained.preprocessing, 1))

    def _prepared(
        self, examples: Examples, preprocessing: Preprocessing, batch_size: int
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yields batches of the readable images.

        Raises:
            ValueError: an image cannot be read, under `on_error="error"`; or no image can be read.
        """
        unreadable = Unreadable(self.on_error)
        batches = evaluation_batches(examples, preprocessing, batch_size, unreadable=unreadable)
        read = 0
        with reading(unreadable):
            for images, labels, _, valid in batches.dataset.as_numpy_iterator():
                read += valid.sum()
                if valid.any():
                    yield images[valid], labels[valid]
        unreadable.log(len(examples))
        if not read:
            raise ValueError(f"{examples.name} has no image that can be read")

    def kept(self, operations: Sequence[str]) -> list[str]:
        """Returns the names of operations that `keep_float` selects.

        Raises:
            ValueError: a name of `keep_float` selects no operation.
        """
        kept: dict[str, None] = {}
        for name in self.keep_float:
            found = [operation for operation in operations if re.search(rf"\b{re.escape(name)}", operation)]
            if not found:
                raise ValueError(f"keep_float={name!r} is not how the name of a layer of the fused network begins")
            kept |= dict.fromkeys(found)
        return list(kept)

    def facts(self, given_back: Sequence[str]) -> dict[str, Any]:
        """Returns the facts for the card."""
        facts = {
            "data": self.examples.name,
            "images": min(self.images, len(self.examples)),
            "keep_float": list(self.keep_float),
        }
        if self.max_drop is None:
            return facts
        choosing = min(self.comparison_images, len(self.held_out) // 2)
        return facts | {"max_drop": self.max_drop, "chosen_on": choosing, "given_back": list(given_back)}


def _shuffled(examples: Examples) -> np.ndarray:
    return np.random.default_rng(0).permutation(len(examples))


def _subset(examples: Examples, chosen: np.ndarray, preprocessing: Preprocessing) -> Examples:
    examples = dataclasses.replace(examples, channels=preprocessing.channels)
    return examples.subset(np.sort(chosen), examples.name)
