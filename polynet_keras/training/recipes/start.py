"""What a run begins with: random weights, or those of another net, of which parts may stay as they are."""

import os
from dataclasses import dataclass
from pathlib import Path

import keras

from polynet_keras.basics.checks import check_flag
from polynet_keras.models.parts import check_part
from polynet_keras.models.structure import Structure
from polynet_keras.pretrained.model_card import MODEL_FILE
from polynet_keras.pretrained.model_file import load_model_file
from polynet_keras.pretrained.registry import find_checkpoint, list_published
from polynet_keras.training.growth import check_optimizer
from polynet_keras.training.insertion import insert_optimizer, plan_insertion


@dataclass(frozen=True)
class Start:
    """What a run begins with.

    Attributes:
        weights: the name of a published checkpoint, a weights file, a `.keras` file such as `polynet grow` leaves, or a
            run folder; `None` for random weights. With other classes than the run's, all but the classifier is loaded.
            Weights bring their own residual factors.
        carry_optimizer: whether the optimizer goes on with what it remembers in a `.keras` file or run folder.
        frozen_through: the last part of the net that is not trained, such as `"stage_b"`; see `training.fine_tuning`.
        frozen_normalizations: whether no batch normalization is trained, and none takes new statistics.

    Raises:
        ValueError: a value out of range, or settings that contradict each other.
    """

    weights: str | None = None
    carry_optimizer: bool = False
    frozen_through: str | None = None
    frozen_normalizations: bool = False

    def __post_init__(self):
        if self.weights is not None and not isinstance(self.weights, (str, os.PathLike)):
            raise ValueError(f"weights={self.weights!r} must be the name of a checkpoint, a file or a run folder")
        if self.weights is not None:
            object.__setattr__(self, "weights", os.fspath(self.weights) or None)
        check_flag("carry_optimizer", self.carry_optimizer)
        check_flag("frozen_normalizations", self.frozen_normalizations)
        if self.frozen_through is not None:
            check_part("frozen_through", self.frozen_through)
            if self.frozen_through == "predictions":
                raise ValueError("frozen_through='predictions' leaves nothing to train")
        if self.weights is None:
            for name in ("carry_optimizer", "frozen_through", "frozen_normalizations"):
                if getattr(self, name):
                    raise ValueError(f"{name}={getattr(self, name)!r} needs weights: random ones are trained")
        if self.carry_optimizer and self.is_published:
            raise ValueError(f"carry_optimizer: the published checkpoint {self.weights!r} has no optimizer")

    @property
    def is_published(self) -> bool:
        """Whether the weights are named, and no file of the user's."""
        return self.weights in list_published()

    @property
    def file(self) -> str | None:
        """What `PolyNet(weights=...)` takes: the checkpoint's name, or the file; of a run folder, its model.

        Raises:
            ValueError: no such file, or a folder without a model.
        """
        if self.weights is None or self.is_published or not os.path.isdir(self.weights):
            find_checkpoint(self.weights)  # raises where there is no such file
            return self.weights
        path = Path(self.weights, MODEL_FILE)
        if not path.is_file():
            raise ValueError(f"weights={self.weights!r} is a folder without {MODEL_FILE}; name a run that was finished")
        return os.fspath(path)

    def carry(self, model: keras.Model, structure: Structure) -> int:
        """Gives a compiled model's optimizer what the file's one remembers; returns of how many variables.

        Raises:
            ValueError: the file's model has no optimizer, or another one.
        """
        if not str(self.file).endswith(".keras"):
            raise ValueError(f"carry_optimizer: {self.file} holds no optimizer; a .keras file or a run folder does")
        source = load_model_file(str(self.file), compile=True)
        check_optimizer(source, f"carry_optimizer, {self.file}")
        return insert_optimizer(source, model, plan_insertion(structure, structure))
