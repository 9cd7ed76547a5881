"""The start of a run: random weights, or another network's weights, some of which may stay frozen."""

import os
from dataclasses import dataclass

from polynet_keras.basics.checks import check_flag, check_integer, plain_numbers
from polynet_keras.basics.names import shown
from polynet_keras.models.parts import check_part
from polynet_keras.pretrained.model_source import Kind, find_model
from polynet_keras.pretrained.registry import list_published
from polynet_keras.training.recipes.phases import PhaseSettings, checked_unfreezing


@dataclass(frozen=True)
class Start:
    """The start of a run.

    Attributes:
        weights: the name of a published checkpoint, a weights file, a `.keras` file (of `polynet grow`, for example),
            or a run folder; `None` for random weights. If the run has other classes, everything but the classifier is
            loaded. Weights bring their own residual factors.
        carry_optimizer: whether the optimizer continues with its state in the `.keras` file or run folder.
        frozen_through: the last part of the network that is not trained, such as `"stage_b"`; see
            `training.fine_tuning`.
        frozen_normalizations: whether no batch normalization is trained, and none updates its statistics.
        unfreezing: phases at the beginning of the run that freeze more, each less than the one before it; the last
            phase uses `frozen_through`. In each phase optimizer and schedule begin anew.
        cache_features: number of copies of each training image whose features (the frozen part's output) are computed
            once and kept in files; the other parts train on them. With 1, the copy is the centre crop, as in
            evaluation, without augmentation. With k ≥ 2, the copies are augmented as in the first k epochs without a
            cache, and epoch e uses copy e modulo k. 0 for no cache.

    Raises:
        ValueError: a value is out of range, or settings contradict each other.

    Examples:
        >>> start = Start("imagenet", frozen_through="stage_b", frozen_normalizations=True)
        >>> start.is_published
        True
    """

    weights: str | None = None
    carry_optimizer: bool = False
    frozen_through: str | None = None
    frozen_normalizations: bool = False
    unfreezing: tuple[PhaseSettings, ...] | None = None
    cache_features: int = 0

    def __post_init__(self):
        if self.weights is not None and not isinstance(self.weights, (str, os.PathLike)):
            raise ValueError(f"weights={self.weights!r} must be the name of a checkpoint, a file or a run folder")
        if self.weights is not None:
            object.__setattr__(self, "weights", os.fspath(self.weights) or None)
        plain_numbers(self)
        check_flag("carry_optimizer", self.carry_optimizer)
        check_flag("frozen_normalizations", self.frozen_normalizations)
        if self.frozen_through is not None:
            check_part("frozen_through", self.frozen_through)
            if self.frozen_through == "predictions":
                raise ValueError("frozen_through='predictions' leaves nothing to train")
        if self.unfreezing is not None:
            phases = checked_unfreezing(self.unfreezing, self.frozen_through)
            object.__setattr__(self, "unfreezing", phases or None)
        if self.unfreezing and self.carry_optimizer:
            raise ValueError("carry_optimizer with unfreezing: each phase begins with a new optimizer; leave one out")
        check_integer("cache_features", self.cache_features, at_least=0)
        if self.cache_features and self.frozen_through is None:
            raise ValueError(
                f"cache_features={self.cache_features} needs frozen_through: the output of a part stays the same only "
                "while it is not trained"
            )
        if self.weights is None:
            for name in ("carry_optimizer", "frozen_through", "frozen_normalizations", "unfreezing"):
                value = getattr(self, name)
                if value:
                    said = name if name == "unfreezing" else f"{name}={value!r}"  # phases are not text for people
                    raise ValueError(f"{said} needs weights: random ones are trained")
        if self.carry_optimizer and self.is_published:
            raise ValueError(f"carry_optimizer: the published checkpoint {self.weights!r} has no optimizer")

    @property
    def is_published(self) -> bool:
        """Whether the weights are a published checkpoint, and not the user's file."""
        return self.weights in list_published()

    @property
    def file(self) -> str | None:
        """The value for `PolyNet(weights=...)`: the checkpoint's name, the file, or the model in a run folder.

        Raises:
            ValueError: there is no such model, or it is exported.
        """
        if self.weights is None:
            return None
        source = find_model(self.weights, "weights")
        if source.kind is Kind.EXPORT:
            raise ValueError(
                f"weights='{shown(source.name)}' is exported and cannot be trained; name the model that it was "
                "exported from"
            )
        return source.file
