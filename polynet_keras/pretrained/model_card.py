"""The card beside a trained model: what its outputs mean and how its images are prepared."""

import dataclasses
import json
import os
from dataclasses import dataclass
from pathlib import Path

from polynet_keras.basics.files import written_whole
from polynet_keras.basics.json_fields import fields_of
from polynet_keras.data.protocol import Preprocessing

MODEL_FILE = "model.keras"
CARD_FILE = "model.json"


@dataclass(frozen=True)
class ModelCard:
    """What goes with a model's numbers.

    Attributes:
        class_names: by index of the model's output.
        preprocessing: from an image to the model's input.
        held_out: number of images that the accuracy was counted on.
        held_out_correct: how many of them the model got right.
        structure: the residual units, in the structure notation.
        held_out_fingerprint: of the held-out images; `""` where it is not known.
    """

    class_names: tuple[str, ...]
    preprocessing: Preprocessing
    held_out: int
    held_out_correct: int
    structure: str = ""
    held_out_fingerprint: str = ""

    def save(self, folder: str | os.PathLike) -> None:
        """Writes the card into `folder`, whole or not at all: a run whose card is there is done."""
        with written_whole(Path(folder, CARD_FILE)) as partial:
            partial.write_text(json.dumps(dataclasses.asdict(self), indent=2) + "\n")

    @classmethod
    def load(cls, folder: str | os.PathLike) -> "ModelCard":
        """Reads the card of `folder`.

        Raises:
            ValueError: there is none, or it is not one; the message names the file, and the field that is wrong.
        """
        path = Path(folder, CARD_FILE)
        with fields_of(path, "no model card can be read: {}", "not a model card") as fields:
            held_out = fields.whole("held_out")
            return cls(
                fields.class_names("class_names"),
                Preprocessing.from_fields(fields.object("preprocessing")),
                held_out,
                fields.whole("held_out_correct", most=held_out),
                fields.text("structure", default=""),
                fields.text("held_out_fingerprint", default=""),
            )
