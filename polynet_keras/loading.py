"""Loads any trained model by its name, for every command that takes `--model`."""

import hashlib
import os
from collections.abc import Sequence

from polynet_keras.data.protocol import Preprocessing
from polynet_keras.deployment.artifact import file_hashes, load_exported
from polynet_keras.evaluation.loading import Runtime, TrainedModel, load_source
from polynet_keras.pretrained.description import Description
from polynet_keras.pretrained.model_source import ModelSource, find_model


def load_model(
    model: str | os.PathLike,
    *,
    class_names: Sequence[str] | None = None,
    preprocessing: Preprocessing | str | tuple[Sequence[float], Sequence[float]] | None = None,
    image_size: int | None = None,
    structure: str | None = None,
    width: float | None = None,
) -> TrainedModel:
    """Loads a trained model, with its classes and its preprocessing.

    Args:
        model: the name of a published checkpoint; a run folder of `polynet train`; a `.keras` file, with or without a
            card beside it; a weights file, which is taken for the released network unless `structure` says otherwise;
            or the folder of an export. An export is a program, and loading it may run it: load only exports that you
            made or trust.
        class_names: names of the classes, by output index, for a model without a card.
        preprocessing: preprocessing of a model without a card: a `Preprocessing`; `"imagenet"`; `"symmetric"` (values
            from -1 to 1); `"unit"` (0 to 1); `"raw"` (0 to 255, for a model that rescales its images); `"caffe"` (as in
            Keras's ResNet and VGG); or mean and deviation of each channel, on the scale [0, 1]. All but the first
            squash the whole image to the model's size.
        image_size: side of the images, in pixels, for a model without a card that takes any size.
        structure: structure of the network of a weights file.
        width: width of the network of a weights file; 1.0 by default.

    Raises:
        ValueError: there is no such model, it cannot be read, or it lacks something that the arguments should give; the
            message names the file and the missing part.
        OSError: a published checkpoint cannot be fetched.

    Examples:
        >>> model = load_model("fashion_mnist")
        >>> model.class_names[:3]
        ('T-shirt/top', 'Trouser', 'Pullover')
        >>> model.preprocessing.image_size
        75
    """
    return load_source(find_model(model), Description(class_names, preprocessing, image_size, structure, width))


def load_export(source: ModelSource) -> TrainedModel:
    """Loads an export from the source that `find_model` found."""
    exported = load_exported(source.path)
    card = exported.card
    digest = hashlib.sha256()
    for file in sorted((card.files or file_hashes(source.path)).items()):
        digest.update(f"{file}\n".encode())
    runtime = Runtime(exported.run, digest.hexdigest())
    return TrainedModel(source.name, runtime, card.preprocessing, card.class_names, card.structure)
