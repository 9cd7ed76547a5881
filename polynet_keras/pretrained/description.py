"""The description of a model, from its card, or from the caller for a model without a card."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

from polynet_keras.basics.names import shown
from polynet_keras.data.normalization import NORMALIZATIONS, preprocessing_named
from polynet_keras.data.protocol import Preprocessing
from polynet_keras.models.structure import Structure
from polynet_keras.pretrained.model_card import ModelCard, card_file
from polynet_keras.pretrained.model_source import Kind, ModelSource
from polynet_keras.pretrained.registry import published


@dataclass(frozen=True)
class Description:
    """What a model without a card lacks.

    Attributes:
        class_names: by index of the model's output.
        preprocessing: the protocol, a name of `data.normalization.NORMALIZATIONS`, or mean and deviation.
        image_size: side of the model's images, in pixels, where it takes any.
        structure: of a weights file, whose network is built of it.
        width: of that network.
    """

    class_names: Sequence[str] | None = None
    preprocessing: Preprocessing | str | tuple[Sequence[float], Sequence[float]] | None = None
    image_size: int | None = None
    structure: str | None = None
    width: float | None = None

    def check_complete(self, name: str, hint: str = "") -> None:
        """Raises a `ValueError` that says what is missing."""
        lacking = []
        if self.class_names is None:
            lacking.append("class_names (--classes: a file of them, one per line)")
        if self.preprocessing is None:
            lacking.append(f"preprocessing (--preprocessing: {', '.join(NORMALIZATIONS)}; or --mean and --std)")
        if lacking:
            raise ValueError(f"{shown(name)} has no card: give its {' and its '.join(lacking)}{hint}")

    def protocol(self, name: str, size: int | None, channels: int) -> Preprocessing:
        """Of a model of such images.

        Raises:
            ValueError: the size is not known, or the preprocessing is of other images.
        """
        assert self.preprocessing is not None
        if isinstance(self.preprocessing, Preprocessing):
            return self.preprocessing
        if size and self.image_size not in (None, size):
            raise ValueError(f"{shown(name)} takes images of {size} px; got image_size={self.image_size}")
        side = size or self.image_size
        if side is None:
            raise ValueError(f"{shown(name)} takes images of any size: give its image_size (--image_size)")
        return preprocessing_named(self.preprocessing, side, channels)


NOTHING = Description()


def card_of(source: ModelSource) -> ModelCard:
    """The card of a run or a `.keras` file, or what one would say of a published checkpoint.

    Raises:
        ValueError: it has none, or one that cannot be read.
    """
    if source.kind is Kind.PUBLISHED:
        checkpoint = published(source.name)
        structure = str(Structure.parse(checkpoint.structure))
        return ModelCard(checkpoint.class_names, checkpoint.preprocessing, 0, 0, structure, width=checkpoint.width)
    if source.kind in (Kind.RUN, Kind.MODEL):
        return ModelCard.load(source.path)
    raise ValueError(f"{shown(source.name)} is {source.kind}, which has no card")


def check_described(source: ModelSource, about: Description = NOTHING) -> ModelCard | None:
    """The card of a run or a `.keras` file; `None` if there is none, or for another kind of model.

    Raises:
        ValueError: a card that cannot be read, a model without one of which something is not said, or something that is
            said of a model that says it itself.
    """
    name = shown(source.name)
    said = " and ".join(field.name for field in dataclasses.fields(about) if getattr(about, field.name) is not None)
    if source.kind is Kind.WEIGHTS:
        if about.structure is not None:
            Structure.parse(about.structure)
            about.check_complete(source.name)
        elif said:
            raise ValueError(f"{name} is a weights file: give its structure (--structure) with its {said}")
        return None
    card = card_file(source.path)
    if source.kind in (Kind.RUN, Kind.MODEL) and not card.is_file():
        if about.structure is not None or about.width is not None:
            raise ValueError(f"{name} holds its network; structure and width are for a weights file")
        hint = "; `polynet card` saves them" if source.kind is Kind.MODEL else ""
        about.check_complete(source.name, hint)
        return None
    if said:
        raise ValueError(f"{name} has a card with its description; leave {said} out")
    return ModelCard.load(source.path) if source.kind in (Kind.RUN, Kind.MODEL) else None
