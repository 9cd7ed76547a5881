"""Trained models from any kind of source, with the preprocessing and the classes of their outputs."""

import functools
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import keras
import numpy as np
from absl import logging

from polynet_keras.applications import PolyNet
from polynet_keras.basics import exports
from polynet_keras.basics.keras_internals import every_layer
from polynet_keras.basics.names import number_of, shown, size_text
from polynet_keras.data.protocol import Preprocessing
from polynet_keras.evaluation.identity import weights_hash
from polynet_keras.evaluation.outputs import SMALLEST, logits_model, two_class_model
from polynet_keras.models.structure import Structure
from polynet_keras.pretrained.conversion import load_weights_file
from polynet_keras.pretrained.description import NOTHING, Description, check_described
from polynet_keras.pretrained.model_file import load_model_file
from polynet_keras.pretrained.model_source import Kind, ModelSource, find_model
from polynet_keras.pretrained.registry import PublishedCheckpoint, published

LARGEST_RESCALING = 0.02
"""A factor below it brings values of 0 to 255 near 1."""


@dataclass(frozen=True)
class Runtime:
    """An exported model, in the runtime of its format.

    Attributes:
        run: function from preprocessed images, float32 (batch, image_size, image_size, channels), to probabilities,
            float32 (batch, classes).
        hash: SHA-256 of its files, in hexadecimal digits.
    """

    run: Callable[[np.ndarray], np.ndarray]
    hash: str


@dataclass(frozen=True)
class TrainedModel:
    """A classifier and its protocol.

    Attributes:
        name: name of the model, as given when it was loaded.
        model: a Keras model or an exported one, from preprocessed images to probabilities or logits.
        preprocessing: preprocessing from an image to the model's input.
        class_names: names by index of the model's output.
        structure: the residual units, in the structure notation; `""` for a network of another package.

    Raises:
        ValueError: a Keras model takes other images or has other classes.

    Examples:
        >>> from polynet_keras.data import Preprocessing
        >>> layers = [keras.Input((16, 16, 3)), keras.layers.Flatten(), keras.layers.Dense(2, "softmax")]
        >>> net = keras.Sequential(layers)
        >>> model = TrainedModel("pets", net, Preprocessing(16, 18), ("cat", "dog"))
        >>> model.probabilities(np.zeros((1, 16, 16, 3), "float32")).tolist()
        [[0.5, 0.5]]
    """

    name: str
    model: keras.Model | Runtime
    preprocessing: Preprocessing
    class_names: tuple[str, ...]
    structure: str = ""

    def __post_init__(self):
        if isinstance(self.model, Runtime):
            return
        name = shown(self.name)
        size, channels = self.preprocessing.image_size, self.preprocessing.channels
        expected = (channels, size, size) if _channels_first() else (size, size, channels)
        found = self.model.input_shape[1:]
        if len(found) != 3 or any(side not in (None, want) for side, want in zip(found, expected, strict=True)):
            raise ValueError(
                f"{name}: the model takes images of {size_text(found)}, its protocol gives {size_text(expected)}"
            )
        if len(self.model.outputs) != 1:
            raise ValueError(f"{name}: the model has {len(self.model.outputs)} outputs; expected one, of classes")
        output, classes = self.model.outputs[0].shape[1:], len(self.class_names)
        if output == (1,):
            raise ValueError(
                f"{name}: the model's output is one number, as of a sigmoid; expected one for each of the "
                f"{number_of(classes, 'class', 'classes')}, with a softmax"
            )
        if output != (classes,):
            raise ValueError(
                f"{name}: the model's output is {size_text(output)}, and "
                f"{number_of(classes, 'class is', 'classes are')} named; name those that it was trained on"
            )

    @property
    def network(self) -> keras.Model:
        """The Keras model.

        Raises:
            ValueError: the model is exported.
        """
        if isinstance(self.model, Runtime):
            raise ValueError(f"{self.name} is exported: name the model that it was exported from")
        return self.model

    @property
    def weights_hash(self) -> str:
        """Hash of a Keras model's weights (`evaluation.identity.weights_hash`), or of an export's files."""
        return self.model.hash if isinstance(self.model, Runtime) else weights_hash(self.model)

    @functools.cached_property
    def _logits(self) -> Callable[[np.ndarray], np.ndarray]:
        if isinstance(self.model, Runtime):
            run = self.model.run
            return lambda images: np.log(np.maximum(run(_channels_last(images)), SMALLEST))
        return logits_model(self.model).predict_on_batch

    def logits(self, images: np.ndarray) -> np.ndarray:
        """Returns the model's outputs for preprocessed images before the softmax.

        An exported model outputs probabilities alone; this method returns their logarithms. They differ from the logits
        by one number per image, which no softmax sees.

        Args:
            images: float32 (batch, image_size, image_size, channels), preprocessed by `preprocessing`; with channels
                first if that is Keras's data format.

        Returns:
            float32 (batch, classes).

        Raises:
            ValueError: the model ends in an activation from which logits cannot be computed.
        """
        return np.asarray(self._logits(images), "float32")

    def probabilities(self, images: np.ndarray) -> np.ndarray:
        """Returns the softmax of `logits`, float32 (batch, classes)."""
        logits = self.logits(images)
        exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
        return exponentials / exponentials.sum(axis=1, keepdims=True)


def trained(model: TrainedModel | str | os.PathLike) -> TrainedModel:
    """Returns the model; loads it first if it is given by name."""
    return model if isinstance(model, TrainedModel) else load_source(find_model(model))


def load_source(source: ModelSource, about: Description = NOTHING) -> TrainedModel:
    """Loads a model from its source.

    Args:
        source: source of the model.
        about: a description beside the model.

    Raises:
        ValueError: the model or its card cannot be read, it lacks something that `about` should give, or it already has
            something that `about` gives.
        OSError: a published checkpoint cannot be fetched.
    """
    card = check_described(source, about)
    match source.kind:
        case Kind.PUBLISHED:
            checkpoint = published(source.name)
            model = PolyNet(weights=source.name, **checkpoint.network)
            return _of_checkpoint(checkpoint, checkpoint.name, model)
        case Kind.WEIGHTS:
            return _weights(source, about)
        case Kind.EXPORT:
            assert exports.load_export is not None
            return exports.load_export(source)
    if card is None:
        return load_described(source, about)
    model = _classifier(source, card.class_names)
    return TrainedModel(source.name, model, card.preprocessing, card.class_names, card.structure)


def _classifier(source: ModelSource, class_names: Sequence[str]) -> keras.Model:
    """Loads the model of a file; a model of two classes with one output gets two outputs."""
    model = load_model_file(source.file)
    tells_by_one = len(class_names) == 2 and getattr(model, "output_shape", None) == (None, 1)
    return two_class_model(model) if tells_by_one else model


def _of_checkpoint(checkpoint: PublishedCheckpoint, name: str, model: keras.Model) -> TrainedModel:
    return TrainedModel(name, model, checkpoint.preprocessing, checkpoint.class_names, checkpoint.structure)


def _weights(source: ModelSource, about: Description) -> TrainedModel:
    """Loads a weights file, into the given structure or the released network."""
    if about.structure is None:
        checkpoint = published("imagenet")
        model = PolyNet(weights=None, **checkpoint.network)
        if load_weights_file(model, source.path).head != "loaded":
            raise ValueError(
                f"weights={source.name!r} has other classes than the {checkpoint.classes} of {checkpoint.name} and "
                "does not say of which; name a run folder, which has their names, or say its structure (--structure) "
                "and class_names (--classes)"
            )
        return _of_checkpoint(checkpoint, source.name, model)
    given = about.preprocessing
    protocol = about.protocol(source.name, None, given.channels if isinstance(given, Preprocessing) else 3)
    size, classes = protocol.image_size, tuple(about.class_names or ())
    model = PolyNet(
        weights=None,
        input_shape=(protocol.channels, size, size) if _channels_first() else (size, size, protocol.channels),
        classes=len(classes),
        structure=about.structure,
        width=1.0 if about.width is None else about.width,
    )
    if load_weights_file(model, source.path).head != "loaded":
        raise ValueError(f"weights={source.name!r} has other classes than the {len(classes)} of class_names")
    return TrainedModel(source.name, model, protocol, classes, str(Structure.parse(about.structure)))


def load_described(source: ModelSource, about: Description) -> TrainedModel:
    """Loads a Keras model by its description, whatever its card says. A fixed input size decides the image size.

    Raises:
        ValueError: the model cannot be read, or does not have such images and classes.
    """
    model, name = _classifier(source, about.class_names or ()), source.name
    shape = getattr(model, "input_shape", None)
    if not isinstance(shape, tuple) or len(shape) != 4:
        raise ValueError(
            f"{shown(name)} takes inputs of "
            f"{size_text(shape) if isinstance(shape, tuple) else 'several kinds'}; expected one batch of images"
        )
    *sides, channels = (*shape[2:], shape[1]) if _channels_first() else shape[1:]
    if sides[0] != sides[1]:
        raise ValueError(f"{shown(name)} takes images of {size_text(sides)} px; expected square ones")
    protocol, structure = about.protocol(name, sides[0], channels), getattr(model, "structure", None)
    if min(protocol.std) > LARGEST_RESCALING and any(map(_rescales, every_layer(model))):
        logging.warning(
            "%s divides the values of images itself, after the preprocessing has; --preprocessing=raw does not",
            shown(name),
        )
    return TrainedModel(name, model, protocol, tuple(about.class_names or ()), structure or "")


def _rescales(layer: keras.Layer) -> bool:
    """Whether a layer rescales images of 0 to 255, as in Keras's tutorials and EfficientNet: others look black."""
    return isinstance(layer, keras.layers.Rescaling) and bool(np.max(layer.scale) < LARGEST_RESCALING)


def _channels_first() -> bool:
    return keras.config.image_data_format() == "channels_first"


def _channels_last(images: np.ndarray) -> np.ndarray:
    """Returns the images with channels last, as exported models take them."""
    return np.moveaxis(images, 1, -1) if _channels_first() else images
