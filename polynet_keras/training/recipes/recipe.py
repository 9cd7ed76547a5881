"""The recipe: everything that decides a training run, as a value that is saved with it."""

import dataclasses
import difflib
import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from polynet_keras.basics.checks import check_choice, check_flag, check_integer, check_number, plain_numbers
from polynet_keras.basics.files import written_whole
from polynet_keras.data.augmentation import Augmentation
from polynet_keras.data.crops import CROPS
from polynet_keras.data.decoding import ON_ERROR
from polynet_keras.data.sources import BUILT_IN, DIGITS
from polynet_keras.engine.rematerialization import check_remat
from polynet_keras.models.arguments import MIN_SIZE
from polynet_keras.models.residual_scale import scales_and_survival
from polynet_keras.models.structure import Structure
from polynet_keras.training.precision import PRECISIONS
from polynet_keras.training.recipes.optimizer import OPTIMIZERS_OWN, OptimizerSettings
from polynet_keras.training.recipes.regularization import DEPTHS_OWN, Regularization
from polynet_keras.training.recipes.schedule import SCHEDULES_OWN, ScheduleSettings
from polynet_keras.training.recipes.start import Start

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
    seed: int = 0
    """Of the initialization, the split, the order and the augmentation."""
    start: Start = field(default_factory=Start)
    """What the net begins with."""
    augmentation: Augmentation = field(default_factory=Augmentation)
    """What is done to a training image: by default the poster's random crop alone."""
    optimizer: OptimizerSettings = field(default_factory=OptimizerSettings)
    """By default the poster's RMSprop."""
    schedule: ScheduleSettings = field(default_factory=ScheduleSettings)
    """Of the learning rate."""
    regularization: Regularization = field(default_factory=Regularization)
    """Against overfitting."""
    precision: str = "float32"
    """In which the net computes: a policy of Keras, one of `PRECISIONS`."""
    remat: str = "none"
    """What the backward pass computes again instead of keeping it: `"none"`, `"stage_b"` or `"all"`."""
    synchronized: bool = False
    """Whether batch normalization takes its statistics of the global batch, or of the part that a device has."""
    crops: int = 1
    """Of each image, that `polynet evaluate` shows the net: 1, 10 or the poster's 144."""
    on_error: str = "error"
    """What to do about an image that cannot be read: `"error"`, or `"skip"`, which lists them at the end."""

    def __post_init__(self):
        if not isinstance(self.data, (str, os.PathLike)):
            raise ValueError(f"data={self.data!r} must be {' or '.join(map(repr, BUILT_IN))} or the path of a folder")
        # What is saved as JSON must come back as the same value.
        self._set("data", os.fspath(self.data))
        if isinstance(self.structure, Structure):
            self._set("structure", str(self.structure))
        plain_numbers(self)
        for name, section in SECTIONS.items():
            if not isinstance(getattr(self, name), section):
                raise ValueError(f"{name}={getattr(self, name)!r} must be of the class {section.__name__}")
        self._set("augmentation", dataclasses.replace(self.augmentation))
        plain_numbers(self.augmentation)
        scales_and_survival(self.residual_scale, Structure.parse(self.structure).module_count)
        if isinstance(self.residual_scale, (list, tuple)):
            self._set("residual_scale", tuple(map(float, self.residual_scale)))
        for name, minimum in (("image_size", MIN_SIZE), ("epochs", 1), ("batch_size", 1), ("seed", 0)):
            check_integer(name, getattr(self, name), minimum, MAX_SEED if name == "seed" else None)
        check_number("width", self.width, above=0)
        check_choice("precision", self.precision, PRECISIONS)
        check_choice("on_error", self.on_error, ON_ERROR)
        check_remat(self.remat)
        check_flag("synchronized", self.synchronized)
        check_integer("crops", self.crops, 1)
        if self.crops not in CROPS:
            raise ValueError(f"crops={self.crops!r} must be one of {CROPS}")
        if self.regularization.stochastic_depth == "adaptive":
            self._check_gap()

    def _check_gap(self) -> None:
        """Training and validation must be measured alike, or their gap says nothing of overfitting."""
        metric = self.regularization.gap_metric
        if self.augmentation.mixes:
            raise ValueError(f"stochastic_depth='adaptive' with mixed images: their {metric} tells nothing; use 'on'")
        if metric == "loss" and self.regularization.label_smoothing:
            raise ValueError("gap_metric='loss' with label_smoothing: it is in one of the losses only; use 'accuracy'")

    def _set(self, name: str, value) -> None:
        object.__setattr__(self, name, value)

    @property
    def resize_size(self) -> int:
        return round(self.image_size * RESIZE_RATIO)

    @property
    def labels_are_shares(self) -> bool:
        """Whether a training image has shares of the classes, and not one class."""
        return self.augmentation.mixes or self.regularization.label_smoothing > 0

    @property
    def fingerprint(self) -> str:
        """SHA-256 of what the recipe says."""
        return hashlib.sha256(json.dumps(dataclasses.asdict(self), sort_keys=True).encode()).hexdigest()

    def facts(self) -> dict[str, str]:
        """What the recipe says, by setting (`"width"`, `"optimizer.momentum"`), as JSON."""
        return {name: json.dumps(value, sort_keys=True) for name, value in self._settings().items()}

    def differences(self, other: "Recipe") -> list[str]:
        """In what another recipe differs: `name=its value, here this one's`."""
        mine, others = self._settings(), other._settings()
        return [f"{name}={others[name]!r}, here {mine[name]!r}" for name in mine if mine[name] != others[name]]

    def _settings(self) -> dict[str, Any]:
        settings: dict[str, Any] = {}
        for name, value in dataclasses.asdict(self).items():
            inner = value if name in SECTIONS else {"": value}
            settings |= {f"{name}.{key}".rstrip("."): one for key, one in inner.items()}
        return settings

    def replaced(self, settings: Mapping[str, Any]) -> "Recipe":
        """The recipe with other settings.

        Args:
            settings: by name; of a section's, by `"section.name"`. Another optimizer or schedule brings its own
                defaults for what is only its own.

        Raises:
            ValueError: an unknown setting, or a value out of range.
        """
        values: dict[str, Any] = {}
        sections: dict[str, dict[str, Any]] = {}
        for name, value in settings.items():
            section, dot, inner = name.partition(".")
            owner = SECTIONS.get(section) if dot else Recipe
            if owner is None or (inner or name) not in [field.name for field in dataclasses.fields(owner)]:
                raise ValueError(f"unknown setting {name!r}{_meant(name, list(self._settings()))}")
            if dot:
                sections.setdefault(section, {})[inner] = value
            else:
                values[name] = value
        for section, changes in sections.items():
            before = getattr(self, section)
            choice, own = OWN_SETTINGS.get(section, ("", ()))
            is_another = choice in changes and changes[choice] != getattr(before, choice)
            forgotten = dict.fromkeys(own) if is_another else {}
            values[section] = dataclasses.replace(before, **{**forgotten, **changes})
        return dataclasses.replace(self, **values)

    def save(self, path: str | os.PathLike) -> None:
        """Writes the recipe as JSON, whole or not at all."""
        with written_whole(Path(path)) as partial:
            partial.write_text(json.dumps(dataclasses.asdict(self), indent=2) + "\n")

    @classmethod
    def load(cls, path: str | os.PathLike) -> "Recipe":
        """Reads a recipe: a JSON file that `save` wrote, or one with some of the settings; the others are the defaults.

        Raises:
            ValueError: the file cannot be read or holds no recipe; the message names it, and the setting.
        """
        try:
            values = json.loads(Path(path).read_text())
            if not isinstance(values, dict):
                raise ValueError("expected an object of settings")
            settings: dict[str, Any] = {}
            for name, value in values.items():
                if name in SECTIONS and not isinstance(value, dict):
                    known = ", ".join(field.name for field in dataclasses.fields(SECTIONS[name]))
                    raise ValueError(f"{name}={value!r} must be an object of settings ({known})")
                inner = value if name in SECTIONS else {"": value}
                settings |= {f"{name}.{key}".rstrip("."): one for key, one in inner.items()}
            return cls().replaced(settings)
        except OSError as error:
            raise ValueError(f"{os.fspath(path)}: cannot be read: {error.strerror}") from None
        except (ValueError, TypeError) as error:
            raise ValueError(f"{os.fspath(path)}: not a recipe: {error}") from None


def _meant(name: str, known: list[str]) -> str:
    """What an unknown setting may stand for."""
    wanted = name.rpartition(".")[2]
    likely = [one for one in known if one.rpartition(".")[2] == wanted or one == f"{wanted}.name"]
    likely += difflib.get_close_matches(name, known, 3)
    return f"; did you mean {' or '.join(dict.fromkeys(likely))}?" if likely else f"; known are {', '.join(known)}"


SECTIONS: dict[str, type] = {
    "start": Start,
    "augmentation": Augmentation,
    "optimizer": OptimizerSettings,
    "schedule": ScheduleSettings,
    "regularization": Regularization,
}
"""The settings that are values with settings of their own."""
OWN_SETTINGS = {
    "optimizer": ("name", OPTIMIZERS_OWN),
    "schedule": ("name", SCHEDULES_OWN),
    "regularization": ("stochastic_depth", DEPTHS_OWN),
}
"""Of a section, the setting that chooses a kind, and those that are only some kinds'."""
