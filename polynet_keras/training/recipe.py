"""The recipe: everything that decides a training run, as a value that is saved with it."""

import dataclasses
import hashlib
import json
import math
import os
from dataclasses import dataclass
from numbers import Integral, Real
from pathlib import Path

from polynet_keras.data.augmentation import Augmentation
from polynet_keras.data.decoding import ON_ERROR
from polynet_keras.data.files import written_whole
from polynet_keras.data.sources import BUILT_IN, DIGITS
from polynet_keras.models import Structure
from polynet_keras.models.checks import MIN_SIZE, check_width
from polynet_keras.models.residual_scale import scales_and_survival

RESIZE_RATIO = 378 / 331
"""Side of the resized image to that of its crop: the released net's protocol."""


MAX_SEED = 2**32 - 1
"""NumPy's limit."""


@dataclass(frozen=True)
class Recipe:
    """A training run. The defaults train a small PolyNet on scikit-learn's digits in minutes on a laptop.

    Raises:
        ValueError: a value out of range; the message names it, what it is and what is accepted.
    """

    data: str = DIGITS
    """What `data.sources.open_source` opens: `"digits"`, `"fashion_mnist"`, `"tfds:NAME"`, or a folder of images or of
    records."""
    structure: str = "1 x [2-way] | 1 x [poly-3, 2-way] | 1 x [poly-3]"
    """The residual units: a name or a notation; see `polynet_keras.PolyNet`."""
    width: float = 0.25
    """Multiplier of the channel counts."""
    residual_scale: float | tuple[float, ...] | None = 0.3
    """The factor on the residual paths: at most 0.3 is the authors' advice for training from scratch."""
    image_size: int = MIN_SIZE
    """Side of the network's input, in pixels; images are resized to 378/331 of it and cropped."""
    epochs: int = 15
    """Passes over the training images."""
    batch_size: int = 32
    """Images a step, of all devices and workers together."""
    learning_rate: float = 0.002
    """The highest of the schedule: linear warm-up over the first tenth of the steps, then a cosine to zero."""
    seed: int = 0
    """Of the initialization, the split, the order and the augmentation."""
    synchronized: bool = False
    """Whether batch normalization takes its statistics of the global batch, or of the part that a device has."""
    augmentation: Augmentation = dataclasses.field(default_factory=Augmentation)
    """What is done to a training image: by default the poster's random crop alone."""
    on_error: str = "error"
    """What to do about an image that cannot be read: `"error"`, or `"skip"`, which lists them at the end."""

    def __post_init__(self):
        if not isinstance(self.data, (str, os.PathLike)):
            raise ValueError(f"data={self.data!r} must be {' or '.join(map(repr, BUILT_IN))} or the path of a folder")
        # What is saved as JSON must come back as the same value.
        self._set("data", os.fspath(self.data))
        if isinstance(self.structure, Structure):
            self._set("structure", str(self.structure))
        if isinstance(self.residual_scale, list):
            self._set("residual_scale", tuple(self.residual_scale))
        if isinstance(self.augmentation, dict):
            self._set("augmentation", Augmentation(**self.augmentation))
        if self.on_error not in ON_ERROR:
            raise ValueError(f"on_error={self.on_error!r} must be one of {ON_ERROR}")
        scales_and_survival(self.residual_scale, Structure.parse(self.structure).module_count)
        for name, minimum in (("image_size", MIN_SIZE), ("epochs", 1), ("batch_size", 1), ("seed", 0)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, Integral) or value < minimum:
                raise ValueError(f"{name}={value!r} must be an integer of at least {minimum}")
            self._set(name, int(value))
        if self.seed > MAX_SEED:
            raise ValueError(f"seed={self.seed} must be at most {MAX_SEED}")
        if not isinstance(self.synchronized, bool):
            raise ValueError(f"synchronized={self.synchronized!r} must be True or False")
        check_width(self.width)
        rate = self.learning_rate
        if isinstance(rate, bool) or not isinstance(rate, Real) or not math.isfinite(rate) or rate <= 0:
            raise ValueError(f"learning_rate={rate!r} must be a finite number > 0")

    def _set(self, name: str, value) -> None:
        object.__setattr__(self, name, value)

    @property
    def resize_size(self) -> int:
        return round(self.image_size * RESIZE_RATIO)

    @property
    def fingerprint(self) -> str:
        """SHA-256 of what the recipe says."""
        return hashlib.sha256(json.dumps(dataclasses.asdict(self), sort_keys=True).encode()).hexdigest()

    def facts(self) -> dict[str, str]:
        """What the recipe says, by field, as JSON; of the augmentation field by field too."""
        values = dataclasses.asdict(self)
        augmentation = values.pop("augmentation")
        values |= {f"augmentation.{name}": value for name, value in augmentation.items()}
        return {name: json.dumps(value, sort_keys=True) for name, value in values.items()}

    def differences(self, other: "Recipe") -> list[str]:
        """In what another recipe differs: `name=its value, here this one's`."""
        mine, others = dataclasses.asdict(self), dataclasses.asdict(other)
        return [f"{name}={others[name]!r}, here {mine[name]!r}" for name in mine if mine[name] != others[name]]

    def save(self, path: str | os.PathLike) -> None:
        """Writes the recipe as JSON, whole or not at all."""
        with written_whole(Path(path)) as partial:
            partial.write_text(json.dumps(dataclasses.asdict(self), indent=2) + "\n")

    @classmethod
    def load(cls, path: str | os.PathLike) -> "Recipe":
        """Reads a recipe that `save` wrote.

        Raises:
            ValueError: the file cannot be read or holds no recipe; the message names it.
        """
        try:
            return cls(**json.loads(Path(path).read_text()))
        except OSError as error:
            raise ValueError(f"{os.fspath(path)}: cannot be read: {error.strerror}") from None
        except (ValueError, TypeError) as error:
            raise ValueError(f"{os.fspath(path)}: not a recipe: {error}") from None
