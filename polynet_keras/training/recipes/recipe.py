"""The recipe: everything that decides a training run, as a value that is saved with the run."""

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
from polynet_keras.data.augmentation import POLICIES_OWN, Augmentation
from polynet_keras.data.class_weights import check_class_weights
from polynet_keras.data.crops import check_crops
from polynet_keras.data.folders import LAYOUTS
from polynet_keras.data.image_files import ON_ERROR
from polynet_keras.data.protocol import DECODINGS
from polynet_keras.data.sampling import SAMPLINGS
from polynet_keras.data.source_names import BUILT_IN, DIGITS
from polynet_keras.models.arguments import MIN_SIZE, check_remat
from polynet_keras.models.residual_scale import scales_and_survival
from polynet_keras.models.structure import Structure
from polynet_keras.training.recipes.agreement import check_agreement
from polynet_keras.training.recipes.optimizer import OPTIMIZERS_OWN, OptimizerSettings
from polynet_keras.training.recipes.phases import PhaseSettings, phases_of
from polynet_keras.training.recipes.regularization import DEPTHS_OWN, TEACHER, Regularization
from polynet_keras.training.recipes.schedule import SCHEDULES_OWN, ScheduleSettings
from polynet_keras.training.recipes.start import Start

LOSSES = ("categorical", "binary")
PRECISIONS = ("float32", "mixed_bfloat16", "mixed_float16")

RESIZE_RATIO = 378 / 331
"""Ratio of the side of the resized image to that of its crop: the released network's protocol."""

MAX_SEED = 2**32 - 1
"""NumPy's largest seed."""

LATER = {
    "layout": "auto",
    "decoding": "exact",
    "validation_share": None,
    "patience": None,
    "class_weights": None,
    "sampling": "uniform",
    "augmentation.crop_min_area": None,
    "optimizer.learning_rate_factors": None,
    "optimizer.layer_decay": 1.0,
    "augmentation.magnitude": None,
    "augmentation.magnitude_std": None,
    "augmentation.repeats": 1,
    "optimizer.decay_in_ratio": False,
    "evaluation_size": None,
    "loss": "categorical",
    "target_threshold": None,
    "regularization.teacher": None,
    **{f"regularization.{name}": usual for name, usual in TEACHER.items()},
    "normalization_momentum": None,
    "start.unfreezing": None,
    "start.cache_features": 0,
}
"""Settings that older recipes lack, with the values that keep the old behaviour: fingerprints leave these out."""


@dataclass(frozen=True)
class Recipe:
    """A training run. The defaults train a small PolyNet on scikit-learn's digits in minutes on a laptop.

    Raises:
        ValueError: a value is out of range; the message has the setting, its value and the accepted values.

    Examples:
        >>> recipe = Recipe(width=0.5, epochs=3)
        >>> recipe.data, recipe.epochs
        ('digits', 3)
        >>> recipe.replaced({"optimizer.name": "sgd"}).optimizer.momentum
        0.9
    """

    data: str = DIGITS
    """Data that `data.sources.open_source` opens: `"digits"`, `"fashion_mnist"`, `"tfds:NAME"`, a folder of images or
    of records, or a table of images."""
    layout: str = "auto"
    """Meaning of the folders in a folder of images: `"classes"`, `"splits"`, or `"auto"` to decide by their names."""
    validation_share: float | None = None
    """Share of each class's training images that chooses the best epoch; with 0, the last epoch is used. None uses the
    split `val` if the data have a split `test` or `held_out` too, and otherwise means 0."""
    class_weights: str | Mapping[str, float] | None = None
    """Weights of training images in the loss, by the name of their class (1 for classes not named), or `"balanced"`:
    all classes count the same. None: all images count the same."""
    sampling: str = "uniform"
    """The unit that an epoch draws equally often: each image (`"uniform"`), or each class (`"balanced"`)."""
    structure: str = "1 x [2-way] | 1 x [poly-3, 2-way] | 1 x [poly-3]"
    """The residual units: a name or a notation; see `polynet_keras.PolyNet`."""
    width: float = 0.25
    """Multiplier of the channel counts."""
    residual_scale: float | tuple[float, ...] | None = 0.3
    """The factor on the residual paths. The authors advise at most 0.3 for training from scratch."""
    normalization_momentum: float | None = None
    """Share of the moving statistics of batch normalization that a step keeps; None for the network's own, 0.9. The
    statistics then come from about 1 / (1 - momentum) batches."""
    image_size: int = MIN_SIZE
    """Side of the network's input, in pixels; images are resized to 378/331 of it and cropped."""
    evaluation_size: int | None = None
    """Side of the images in evaluation and use, in pixels; None for `image_size`, the training size."""
    decoding: str = "exact"
    """Decoding of large JPEG files: `"exact"`, or `"scaled"` to 1/2, 1/4 or 1/8, as in `Preprocessing`."""
    epochs: int = 15
    """Passes over the training images."""
    patience: int | None = None
    """Epochs without a better one before training ends early; None trains all `epochs`."""
    batch_size: int = 32
    """Images per step, of all devices and workers together."""
    seed: int = 0
    """Seed of the initialization, the split, the order and the augmentation."""
    start: Start = field(default_factory=Start)
    """Initial weights of the network."""
    augmentation: Augmentation = field(default_factory=Augmentation)
    """Augmentation of training images: by default only the poster's random crop."""
    optimizer: OptimizerSettings = field(default_factory=OptimizerSettings)
    """The optimizer; by default the poster's RMSprop."""
    schedule: ScheduleSettings = field(default_factory=ScheduleSettings)
    """Schedule of the learning rate."""
    regularization: Regularization = field(default_factory=Regularization)
    """Measures against overfitting."""
    loss: str = "categorical"
    """`"categorical"`, the cross-entropy of the softmax; or `"binary"`, the mean of the binary cross-entropies of the
    classes, each of its own logit (`training.losses`)."""
    target_threshold: float | None = None
    """For `loss="binary"`: the share of a mixed image above which a class counts as present; None uses the shares."""
    precision: str = "float32"
    """Precision of the network's computations: a Keras policy, one of `PRECISIONS`."""
    remat: str = "none"
    """The activations that the backward pass recomputes instead of keeping: `"none"`, `"stage_b"` or `"all"`."""
    synchronized: bool = False
    """Whether batch normalization uses the statistics of the global batch, instead of those of each device's part."""
    crops: int = 1
    """Crops of each image in `polynet evaluate`: 1, 10 or the poster's 144."""
    on_error: str = "error"
    """Handling of unreadable images: `"error"`, or `"skip"`, which lists them at the end."""

    def __post_init__(self):
        if not isinstance(self.data, (str, os.PathLike)):
            named = " or ".join(map(repr, BUILT_IN))
            raise ValueError(f"data={self.data!r} must be {named} or the path of a folder or of a table")
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
        if self.evaluation_size is not None:
            check_integer("evaluation_size", self.evaluation_size, MIN_SIZE)
        if self.validation_share is not None:
            check_number("validation_share", self.validation_share, at_least=0, below=1)
        if self.patience is not None:
            check_integer("patience", self.patience, at_least=1)
            if self.validation_share == 0:
                raise ValueError(
                    f"patience={self.patience} needs images to choose the best epoch, but validation_share=0 leaves "
                    "none"
                )
        before = sum(phase.epochs for phase in self.start.unfreezing or ())
        if before >= self.epochs:
            raise ValueError(
                f"epochs={self.epochs} leaves none for the phase after unfreezing, which takes {before}; give more"
            )
        check_class_weights(self.class_weights)
        if isinstance(self.class_weights, Mapping):
            self._set("class_weights", {name: float(weight) for name, weight in self.class_weights.items()})
        check_number("width", self.width, above=0)
        if self.normalization_momentum is not None:
            check_number("normalization_momentum", self.normalization_momentum, at_least=0, below=1)
        check_choice("layout", self.layout, LAYOUTS)
        check_choice("decoding", self.decoding, DECODINGS)
        check_choice("loss", self.loss, LOSSES)
        check_choice("sampling", self.sampling, SAMPLINGS)
        check_choice("precision", self.precision, PRECISIONS)
        check_choice("on_error", self.on_error, ON_ERROR)
        check_remat(self.remat)
        check_flag("synchronized", self.synchronized)
        check_integer("crops", self.crops, 1)
        check_crops("crops", self.crops)
        check_agreement(self)

    def _set(self, name: str, value) -> None:
        object.__setattr__(self, name, value)

    @property
    def phases(self) -> list[PhaseSettings]:
        """The phases of the run: one, or those of `start.unfreezing` and a last one."""
        return phases_of(self.start.unfreezing or (), self.start.frozen_through, self.epochs)

    @property
    def resize_size(self) -> int:
        return resize_size_of(self.image_size)

    @property
    def labels_are_shares(self) -> bool:
        """Whether a training image's label has shares of the classes, instead of one class."""
        return self.augmentation.mixes or self.regularization.label_smoothing > 0 or self.loss == "binary"

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the recipe's settings."""
        settings = dataclasses.asdict(self)
        for name, default in LATER.items():
            section, _, setting = name.rpartition(".")
            owner = settings[section] if section else settings
            if owner[setting] == default:
                del owner[setting]
        return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()

    def facts(self) -> dict[str, str]:
        """Returns the recipe's values by setting (`"width"`, `"optimizer.momentum"`), as JSON."""
        return {name: json.dumps(value, sort_keys=True) for name, value in self._settings().items()}

    def differences(self, other: "Recipe") -> list[str]:
        """Returns the settings that differ in another recipe, as `name=its value, here this one's`."""
        mine, others = self._settings(), other._settings()
        return [f"{name}={others[name]!r}, here {mine[name]!r}" for name in mine if mine[name] != others[name]]

    def _settings(self) -> dict[str, Any]:
        settings: dict[str, Any] = {}
        for name, value in dataclasses.asdict(self).items():
            inner = value if name in SECTIONS else {"": value}
            settings |= {f"{name}.{key}".rstrip("."): one for key, one in inner.items()}
        return settings

    def replaced(self, settings: Mapping[str, Any]) -> "Recipe":
        """Returns the recipe with other settings.

        Args:
            settings: values by name; for a setting of a section, by `"section.name"`. If you choose another optimizer,
                schedule, loss or teacher, the settings that only the old one had are dropped, and the new one's get
                their defaults.

        Raises:
            ValueError: a setting is unknown, or a value is out of range.
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
            forgotten: dict[str, None] = {}
            for choice, own in OWN_SETTINGS.get(section, {}).items():
                if choice in changes and changes[choice] != getattr(before, choice):
                    forgotten |= dict.fromkeys(own)
            values[section] = dataclasses.replace(before, **{**forgotten, **changes})
        if values.get("loss", self.loss) != self.loss:
            values.setdefault("target_threshold", None)
        return dataclasses.replace(self, **values)

    def save(self, path: str | os.PathLike) -> None:
        """Writes the recipe as JSON, completely or not at all."""
        with written_whole(Path(path)) as partial:
            partial.write_text(json.dumps(dataclasses.asdict(self), indent=2) + "\n")

    @classmethod
    def load(cls, path: str | os.PathLike) -> "Recipe":
        """Reads a recipe from JSON: a file of `save`, or one with some of the settings; the others are the defaults.

        Raises:
            ValueError: the file cannot be read or holds no recipe; the message names the file and the setting.
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


def resize_size_of(image_size: int) -> int:
    """Returns the side of the resized image that a crop of this side is cut from."""
    return round(image_size * RESIZE_RATIO)


def _meant(name: str, known: list[str]) -> str:
    """Returns a suggestion for an unknown setting, or the known settings."""
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
"""The settings that have settings of their own."""
OWN_SETTINGS: dict[str, dict[str, tuple[str, ...]]] = {
    "augmentation": {"crop": ("crop_min_area",), "policy": POLICIES_OWN},
    "optimizer": {"name": OPTIMIZERS_OWN},
    "schedule": {"name": SCHEDULES_OWN},
    "regularization": {"stochastic_depth": DEPTHS_OWN, "teacher": tuple(TEACHER)},
}
"""For each section: the setting that chooses a kind, and the settings that only some kinds have."""
