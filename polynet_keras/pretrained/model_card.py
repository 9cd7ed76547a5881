"""The card beside a trained model: what its outputs mean and how its images are prepared."""

import dataclasses
import json
import os
from dataclasses import dataclass
from pathlib import Path

from polynet_keras.basics.files import written_whole
from polynet_keras.basics.json_fields import fields_of
from polynet_keras.data.protocol import Preprocessing

MAX_WIDTH = 1000.0
CARD_FILE = "model.json"
"""Of a run: beside its `model.keras`."""


@dataclass(frozen=True)
class ModelCard:
    """What goes with a model's numbers.

    Attributes:
        class_names: by index of the model's output.
        preprocessing: from an image to the model's input.
        held_out: number of images that the accuracy was counted on; 0 where it was not.
        held_out_correct: how many of them the model got right.
        structure: the residual units, in the structure notation.
        held_out_fingerprint: of the held-out images; `""` where it is not known.
        width: of the network; 0 where it is not known.
        epoch: of the run that the model is of, counted from 1; 0 where it is not known.
        validation: number of images on which that epoch was chosen, none of which is held out; 0 where it is the last.
        validation_correct: how many of these the model got right.
        training_counts: images of each class that the model was trained on, by index; empty where they are not known.
        teacher_hash: SHA-256 of the file of the model that it was distilled from; `""` where it learned from labels.

    Examples:
        >>> from polynet_keras.data import Preprocessing
        >>> card = ModelCard(("cat", "dog"), Preprocessing(75, 86), held_out=20, held_out_correct=19)
        >>> card.save(folder)
        >>> ModelCard.load(folder) == card
        True
    """

    class_names: tuple[str, ...]
    preprocessing: Preprocessing
    held_out: int
    held_out_correct: int
    structure: str = ""
    held_out_fingerprint: str = ""
    width: float = 0.0
    epoch: int = 0
    validation: int = 0
    validation_correct: int = 0
    training_counts: tuple[int, ...] = ()
    teacher_hash: str = ""

    def save(self, model: str | os.PathLike) -> None:
        """Writes the card of a run folder or a `.keras` file, whole or not at all: a run whose card is there is done.

        Args:
            model: as of `card_file`.
        """
        with written_whole(card_file(model)) as partial:
            partial.write_text(json.dumps(dataclasses.asdict(self), indent=2) + "\n")

    @classmethod
    def load(cls, model: str | os.PathLike) -> "ModelCard":
        """Reads the card of a run folder or a `.keras` file.

        Args:
            model: as of `card_file`.

        Raises:
            ValueError: there is none, or it is not one; the message names the file, and the field that is wrong.
        """
        with fields_of(card_file(model), "no model card can be read: {}", "not a model card") as fields:
            held_out = fields.whole("held_out")
            validation = fields.whole("validation") if "validation" in fields else 0
            class_names = fields.class_names("class_names")
            return cls(
                class_names,
                Preprocessing.from_fields(fields.object("preprocessing")),
                held_out,
                fields.whole("held_out_correct", most=held_out),
                fields.text("structure", default=""),
                fields.text("held_out_fingerprint", default=""),
                fields.number("width", most=MAX_WIDTH) if "width" in fields else 0.0,
                fields.whole("epoch") if "epoch" in fields else 0,
                validation,
                fields.whole("validation_correct", most=validation) if "validation_correct" in fields else 0,
                fields.wholes("training_counts", len(class_names)) if "training_counts" in fields else (),
                fields.text("teacher_hash", default=""),
            )


def card_file(model: str | os.PathLike) -> Path:
    """Where the card of a model is: in a run folder `model.json`, beside `photos.keras` `photos.json`."""
    path = Path(model)
    return path.with_suffix(".json") if path.suffix == ".keras" and not path.is_dir() else path / CARD_FILE
