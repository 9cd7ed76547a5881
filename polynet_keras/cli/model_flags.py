"""`--model`: which model a command is about, and what is said of one without a card."""

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
        verb: what the command does with the model.
        kinds: of models that it takes.
    """
    Heading(values, "Model").string("model", None, f"Model to {verb}: {kinds}. [the newest run in runs/]")


def define_card_flags(values: flags.FlagValues) -> None:
    """Defines what is said of a model that has no card."""
    card = Heading(values, "A model without a card")
    card.string("classes", None, "Text file of the model's classes, one a line, in the order of its outputs.")
    preprocessing = (
        "How images are normalized: `imagenet`, `symmetric` (-1 to 1), `unit` (0 to 1), `raw` (0 to 255, for a model "
        "that rescales its images) or `caffe` (Keras's ResNet and VGG)."
    )
    card.string("preprocessing", None, preprocessing)
    card.list("mean", None, "Mean of each channel, on the scale 0 to 1, in place of --preprocessing: 0.5,0.5,0.5.")
    card.list("std", None, "Deviation of each channel, on the scale 0 to 1, with --mean: 0.25,0.25,0.25.")
    card.integer("image_size", None, "Side of the images, in pixels, of a model that takes any.", lowest=1)


def define_weights_flags(values: flags.FlagValues) -> None:
    """Defines what is said of a weights file."""
    card = Heading(values, "A model without a card")
    card.string("structure", None, "Structure of the network of a weights file. [that of the released net]")
    card.number("width", None, "Width of this network. [1]")


def checked_model(values: flags.FlagValues) -> "tuple[ModelSource, Description]":
    """The model that the flags name, and what they say of it: all is there that loading it needs, as far as can be seen
    without Keras.

    Raises:
        ValueError: no such model, a card that cannot be read, or a model without one of which something is not said.
    """
    from polynet_keras.pretrained.description import check_described

    source, about = find_named(values), described(values)
    check_described(source, about)
    return source, about


def find_named(values: flags.FlagValues) -> "ModelSource":
    """The model that is named, or the newest run, which the log then says.

    Raises:
        ValueError: no such model, or none is named and there is no run.
    """
    from polynet_keras.pretrained.model_source import find_model, newest_run

    if values.model is not None:
        return find_model(values.model)
    source = find_model(newest_run())
    logging.info("no --model: the newest run, %s", shown(source.name))
    return source


def described(values: flags.FlagValues) -> "Description":
    """What the flags say of a model without a card.

    Raises:
        ValueError: a file of classes that cannot be read, or values that contradict each other.
    """
    if (values.mean is None) != (values.std is None):
        raise ValueError("--mean and --std go together: one value for each channel, or one for all")
    if values.mean is not None and values.preprocessing is not None:
        raise ValueError("--preprocessing and --mean both say how images are normalized; say one")
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
