"""Embeddings of image files by a trained model: its features before the classifier."""

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from polynet_keras.basics.checks import near_name
from polynet_keras.basics.names import listed, shown
from polynet_keras.data.image_paths import ImagePaths, image_paths
from polynet_keras.data.protocol import Preprocessing
from polynet_keras.engine.network import Network
from polynet_keras.evaluation.cut_model import graph_of, nodes_of
from polynet_keras.evaluation.embedding_options import check_embedding_options
from polynet_keras.evaluation.features import Features
from polynet_keras.evaluation.image_outputs import image_outputs
from polynet_keras.evaluation.loading import TrainedModel, trained
from polynet_keras.evaluation.outputs import classifier_of
from polynet_keras.models.parts import PARTS, ends_of_parts

POOLED = (keras.layers.Dropout, keras.layers.GlobalAveragePooling2D, keras.layers.GlobalMaxPooling2D)
"""Layers to skip before the classifier: the map gets the requested pooling instead."""

Unread = list[tuple[str, str]]
"""Paths, each with the reason why the file cannot be read."""


def extract_features(
    model: TrainedModel | str | os.PathLike,
    images: str | os.PathLike | Iterable[str | os.PathLike],
    stage: str | None = None,
    pooling: str = "avg",
    batch_size: int = 32,
    on_error: str = "error",
) -> Features:
    """Embeds image files, one view each, by the preprocessing on the model's card: similar images are near.

    All embeddings are in memory at once: 4 bytes per image and channel, 8 KB per image for the released network.

    Args:
        model: a name for `polynet_keras.load_model`, or the model that it returned; not an export, which outputs only
            classes.
        images: files; folders, for all images below them, sorted; and patterns such as `"photos/*.jpg"`.
        stage: the stage whose output is used: for a PolyNet `stem`, `stage_a`, `reduction_a`, `stage_b`, `reduction_b`
            or `stage_c`, at its end; for any network, the name of a layer. The default is the classifier's input before
            pooling, which is stage C of a PolyNet. Earlier stages know less about the classes, and more about colours
            and textures.
        pooling: `"avg"` or `"max"`, the mean or the largest value of each channel of a map; a stage's vector is not
            pooled.
        batch_size: images in one forward pass.
        on_error: `"error"` stops at the first image that cannot be read, `"skip"` leaves such images out.

    Returns:
        The features of all readable files, in their order.

    Raises:
        ValueError: there is no image, or no readable one, a value is out of range, the model does not have the stage,
            the model is an export, or it does not exist or cannot be read.
        OSError: a published checkpoint cannot be fetched.

    Examples:
        >>> features = extract_features(trained, photos)
        >>> features.embeddings.shape, len(features.paths)
        ((10, 3), 10)
    """
    check_embedding_options(stage, pooling, batch_size, on_error)
    paths = image_paths(images)
    return embed(trained(model), paths, stage, pooling, batch_size, on_error)[0]


def embed(
    model: TrainedModel,
    images: ImagePaths,
    stage: str | None = None,
    pooling: str = "avg",
    batch_size: int = 32,
    on_error: str = "error",
) -> tuple[Features, Unread]:
    """Returns the features of `extract_features`, and the files that were left out."""
    network, name, pooled = _cut(model.network, stage, pooling)
    embedding = _Embedding(model.preprocessing, model.class_names, network)
    # Allocated at its largest size: a list of rows, joined at the end, would take twice the memory.
    embeddings = np.empty((len(images.sizes), network.output_shape[-1]), "float32")
    paths: list[str] = []
    unread: Unread = []
    for index, output, error in image_outputs(embedding, images, batch_size=batch_size):
        if output is not None:
            (embeddings[len(paths)],) = output
            paths.append(images.paths[index])
            continue
        unread.append((images.paths[index], error))
        if on_error == "error":
            raise ValueError(f"{shown(images.paths[index])}: {error}")
    if not paths:
        path, error = unread[0]
        raise ValueError(f"none of {len(images):,} images can be read; {shown(path)}: {error}")
    features = Features(
        paths=np.array(paths),
        embeddings=embeddings[: len(paths)],
        stage=name,
        pooling=pooling if pooled else "",
        class_names=model.class_names,
        model=model.name,
        weights_hash=model.weights_hash,
        preprocessing=model.preprocessing,
    )
    return features, unread


@dataclass(frozen=True)
class _Embedding:
    """A `scoring.Scoring` whose numbers for each image are embeddings instead of logits."""

    preprocessing: Preprocessing
    class_names: tuple[str, ...]
    network: keras.Model

    def logits(self, images: np.ndarray) -> np.ndarray:
        return np.asarray(self.network.predict_on_batch(images), "float32")


def _cut(model: keras.Model, stage: str | None, pooling: str) -> tuple[keras.Model, str, bool]:
    """Returns the model up to a stage, pooled; the stage's name; and whether its output is a map."""
    graph = graph_of(model)
    nodes = [] if graph is None else list(nodes_of(graph))
    calls = {node.operation.name: node for node in nodes}
    ends = {part: calls[operation.name] for part, operation in ends_of_parts(n.operation for n in nodes).items()}
    node = _before_classifier(model, nodes) if stage is None else {**calls, **ends}.get(stage)
    times = sum(one.operation.name == stage for one in nodes)
    if times > 1 and stage not in ends:
        raise ValueError(f"stage={stage!r} is called {times} times by model {model.name!r}; name a layer behind it")
    if node is None or len(node.outputs) != 1 or len(node.outputs[0].shape) not in (2, 4):
        parts = [part for part in PARTS if part in ends]
        names = [name for name, one in reversed(calls.items()) if len(one.outputs[0].shape) in (2, 4)]
        wanted = f"one of {', '.join(parts)}, or a layer" if parts else "a layer"
        begins = "the classifier is in a model inside: name a stage," if stage is None else f"stage={stage!r} must be"
        raise ValueError(
            f"{begins} {wanted} of model {model.name!r} that puts out a map, or a vector, for each "
            f"image; from the last one they are {listed(names)}{near_name(stage or '', [*parts, *names])}"
        )
    tensor = node.outputs[0]
    is_map = len(tensor.shape) == 4
    if is_map:
        pool = keras.layers.GlobalMaxPooling2D if pooling == "max" else keras.layers.GlobalAveragePooling2D
        tensor = pool(dtype="float32")(tensor)
    name = next((part for part, end in ends.items() if end is node), node.operation.name)
    return (Network if isinstance(model, Network) else keras.Model)(model.inputs[0], tensor), name, is_map


def _before_classifier(model: keras.Model, nodes: Sequence[Any]) -> Any:
    """Returns the call whose output goes into the classifier, before pooling; `None` if a nested model has it."""
    makers = {id(output): node for node in nodes for output in node.outputs}
    classifier = classifier_of(model)
    node = next((node for node in nodes if node.operation is classifier), None)
    while node is not None:
        node = makers.get(id(node.input_tensors[0]))
        if node is None or not isinstance(node.operation, POOLED):
            return node
    return None
