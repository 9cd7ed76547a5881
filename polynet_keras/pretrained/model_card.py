"""The card beside a trained model: what its outputs mean and how its images are prepared."""

import dataclasses
import json
import os
from dataclasses import dataclass
from pathlib import Path

from polynet_keras.data.files import written_whole
from polynet_keras.data.preprocessing import Preprocessing

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
            ValueError: there is none, or it is not one; the message names the file.
        """
        path = Path(folder, CARD_FILE)
        try:
            values = json.loads(path.read_text())
            preprocessing = Preprocessing(**values.pop("preprocessing"))
            return cls(tuple(values.pop("class_names")), preprocessing, **values)
        except OSError as error:
            raise ValueError(f"{path}: no model card can be read: {error.strerror}") from None
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise ValueError(f"{path}: not a model card: {error}") from None
