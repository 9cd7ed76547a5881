"""`--model` names the model of a command; other flags describe a model without a card."""

from typing import TYPE_CHECKING, Any

from absl import flags, logging

from polynet_keras.basics.names import shown
from polynet_keras.cli.headings import Heading

if TYPE_CHECKING:
    from polynet_keras.pretrained.description import Description
    from polynet_keras.pretrained.model_source import ModelSource

ANY = "a run folder, a .keras file, an exported folder, a weights file, or a name of `polynet weights`"


def define_model_flag(values: flags.FlagValues, verb: str, kinds: str = ANY) -> None:
    """Defines `--model`.

    Args:
        verb: the command's action on the model.
        kinds: the kinds of models that it takes.
    """
    Heading(values, "Model").string("model", None, f"Model to {verb}: {kinds}. [the newest run in runs/]")


def define_card_flags(values: flags.FlagValues) -> None:
    """Defines the flags that describe a model without a card."""
    card = Heading(values, "A model without a card")
    card.string("classes", None, "Text file of the model's classes, one per line, in the order of its outputs.")
    preprocessing = (
        "Normalization of the images: `imagenet`, `symmetric` (-1 to 1), `unit` (0 to 1), `raw` (0 to 255, for a model "
        "that rescales its images) or `caffe` (Keras's ResNet and VGG)."
    )
    card.string("preprocessing", None, preprocessing)
    card.list("mean", None, "Mean of each channel, on the scale 0 to 1, in place of --preprocessing: 0.5,0.5,0.5.")
    card.list("std", None, "Deviation of each channel, on the scale 0 to 1, with --mean: 0.25,0.25,0.25.")
    card.integer("image_size", None, "Side of the images, in pixels, for a model that takes any size.", lowest=1)


def define_weights_flags(values: flags.FlagValues) -> None:
    """Defines the flags that describe a weights file."""
    card = Heading(values, "A model without a card")
    card.string("structure", None, "Structure of a weights file's network. [that of the released net]")
    card.number("width", None, "Width of this network. [1]")


def checked_model(values: flags.FlagValues) -> "tuple[ModelSource, Description]":
    """Returns the model that the flags name, and its description. Checks, without Keras, that all is there to load it.

    Raises:
        ValueError: the model does not exist, its card cannot be read, or it has no card and its description is
            incomplete.
    """
    from polynet_keras.pretrained.description import check_described

    source, about = find_named(values), described(values)
    check_described(source, about)
    return source, about


def find_named(values: flags.FlagValues) -> "ModelSource":
    """Returns the model that is named, or the newest run, which is logged.

    Raises:
        ValueError: the model does not exist, or none is named and there is no run.
    """
    from polynet_keras.pretrained.model_source import find_model, newest_run

    if values.model is not None:
        return find_model(values.model)
    source = find_model(newest_run())
    logging.info("no --model: the newest run, %s", shown(source.name))
    return source


def described(values: flags.FlagValues) -> "Description":
    """Returns the flags' description of a model without a card.

    Raises:
        ValueError: the file of classes cannot be read, or values contradict each other.
    """
    if (values.mean is None) != (values.std is None):
        raise ValueError("--mean and --std go together: one value for each channel, or one for all")
    if values.mean is not None and values.preprocessing is not None:
        raise ValueError("--preprocessing and --mean both define the normalization of images; give one")
    normalization: Any = values.preprocessing
    if values.mean is not None:
        normalization = tuple(_numbers(flag, values[flag].value) for flag in ("mean", "std"))
    from polynet_keras.data.folders import read_class_names
    from polynet_keras.pretrained.description import Description

    classes = None if values.classes is None else read_class_names(values.classes)
    of_weights = [values[flag].value if flag in values else None for flag in ("structure", "width")]
    return Description(classes, normalization, values.image_size, *of_weights)


def _numbers(flag: str, texts: list[str]) -> tuple[float, ...]:
    try:
        return tuple(map(float, texts))
    except ValueError:
        raise ValueError(f"--{flag}={','.join(texts)} must be numbers split by commas") from None
