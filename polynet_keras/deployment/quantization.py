"""Int8: calibrated by NNCF for OpenVINO; for LiteRT of the weights only.

TensorFlow's converter calibrates too, but what it made of the Fashion-MNIST checkpoint got 81 % of 2,000 test images
right where the original gets 93 %, so that it is not offered.
"""

import dataclasses
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from polynet_keras.data.decoding import Unreadable
from polynet_keras.data.examples import Examples
from polynet_keras.data.pipeline import evaluation_batches, reading
from polynet_keras.data.preprocessing import Preprocessing

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


def quantize_openvino(model: Any, batches: Sequence[np.ndarray], keep_float: Sequence[str]) -> Any:
    """The int8 model of an `openvino.Model`, by NNCF's post-training quantization.

    Weights are symmetric for each channel, activations asymmetric (NNCF's preset "mixed").

    Raises:
        ValueError: a name of `keep_float` that no operation has.
    """
    import nncf

    names = [operation.get_friendly_name() for operation in model.get_ops()]
    patterns = [rf".*\b{re.escape(name)}.*" for name in keep_float]
    for name, pattern in zip(keep_float, patterns, strict=True):
        if not any(re.fullmatch(pattern, operation) for operation in names):
            raise ValueError(f"keep_float={name!r} is the beginning of no layer's name in the fused network")
    scope = nncf.IgnoredScope(patterns=patterns) if patterns else None
    return nncf.quantize(
        model,
        nncf.Dataset(batches),
        preset=nncf.QuantizationPreset.MIXED,
        subset_size=len(batches),
        ignored_scope=scope,
    )


def litert_options(precision: str) -> dict[str, Any]:
    """What TensorFlow's converter is told; inputs and outputs stay float32."""
    import tensorflow as tf

    return {"optimizations": [tf.lite.Optimize.DEFAULT]} if precision == "dynamic" else {}


def written_openvino(path: Path, model: Any, precision: str) -> None:
    """Saves an `openvino.Model`; in float16 its weights take half of the space and are computed with in float32."""
    import openvino

    openvino.save_model(model, path, compress_to_fp16=precision == "float16")
