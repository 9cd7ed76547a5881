"""Models that were trained, with what their numbers hold for: of a run folder, or a published checkpoint."""

import os
from dataclasses import dataclass
from pathlib import Path

import keras

from polynet_keras.applications import PolyNet
from polynet_keras.data.protocol import Preprocessing
from polynet_keras.pretrained.conversion import load_weights_file
from polynet_keras.pretrained.model_card import MODEL_FILE, ModelCard
from polynet_keras.pretrained.model_file import load_model_file
from polynet_keras.pretrained.registry import find_checkpoint, published


@dataclass(frozen=True)
class TrainedModel:
    """A classifier and its protocol.

    Attributes:
        name: of the checkpoint or the run folder.
        model: from prepared images to probabilities or logits.
        preprocessing: from an image to the model's input.
        class_names: by index of the model's output.
        structure: the residual units, in the structure notation; `""` for a network of another package.
    """

    name: str
    model: keras.Model
    preprocessing: Preprocessing
    class_names: tuple[str, ...]
    structure: str = ""

    def __post_init__(self):
        size, channels = self.preprocessing.image_size, self.preprocessing.channels
        first = keras.config.image_data_format() == "channels_first"
        expected = (channels, size, size) if first else (size, size, channels)
        found = self.model.input_shape[1:]
        if len(found) != 3 or any(side not in (None, want) for side, want in zip(found, expected, strict=True)):
            raise ValueError(f"{self.name}: the model takes images of the shape {found}, its protocol gives {expected}")
        if self.model.output_shape[1:] != (len(self.class_names),):
            raise ValueError(
                f"{self.name}: the model's output has the shape {self.model.output_shape[1:]}, its card names "
                f"{len(self.class_names)} classes; they are not of one run"
            )


def load_run(run_folder: str | os.PathLike) -> TrainedModel:
    """The model of a folder with `model.keras` and its card, as `polynet train` leaves it.

    Raises:
        ValueError: there is no model or no card, one cannot be read, or they do not fit each other.
    """
    card = ModelCard.load(run_folder)
    model = load_model_file(Path(run_folder, MODEL_FILE))
    return TrainedModel(os.fspath(run_folder), model, card.preprocessing, card.class_names, card.structure)


def load_published(weights: str | os.PathLike) -> TrainedModel:
    """A published checkpoint, under the protocol that it was evaluated with.

    Args:
        weights: the name of a checkpoint, of those that `polynet weights` lists; or a file of the released net,
            converted or as it was published, which is taken for what `"imagenet"` names.

    Raises:
        ValueError: no such checkpoint or file, or a file of another net or of other classes.
        OSError: the checkpoint cannot be fetched.
    """
    named = find_checkpoint(weights)
    checkpoint = named or published("imagenet")
    model = PolyNet(weights=weights if named else None, **checkpoint.network)
    if not named and load_weights_file(model, weights).head != "loaded":
        raise ValueError(
            f"weights={os.fspath(weights)!r} has other classes than the {checkpoint.classes} of {checkpoint.name} and "
            "does not say of which; a run folder has their names: --run_dir"
        )
    name = checkpoint.name if named else os.fspath(weights)
    return TrainedModel(name, model, checkpoint.preprocessing, checkpoint.class_names, checkpoint.structure)
