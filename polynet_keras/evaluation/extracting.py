"""Embeddings of image files by a trained model: what it knows of them before it names a class."""

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
"""What is left out before the classifier: the map is pooled as is asked for."""

Unread = list[tuple[str, str]]
"""Paths, and why they cannot be read."""


def extract_features(
    model: TrainedModel | str | os.PathLike,
    images: str | os.PathLike | Iterable[str | os.PathLike],
    stage: str | None = None,
    pooling: str = "avg",
    batch_size: int = 32,
    on_error: str = "error",
) -> Features:
    """Embeds image files, prepared as the model's card says, one view of each: images that look alike are near.

    All embeddings are in memory at once: 4 bytes for each image and channel, 8 KB an image of the released net.

    Args:
        model: a name that `polynet_keras.load_model` takes, or what that returns; no export, which gives classes alone.
        images: files; folders, for all images below them, sorted; and patterns such as `"photos/*.jpg"`.
        stage: whose output is taken: of a PolyNet `stem`, `stage_a`, `reduction_a`, `stage_b`, `reduction_b` or
            `stage_c`, at its end; of this or any other network the name of a layer. By default what goes into the
            classifier, of a PolyNet stage C. Earlier ones know less of the classes, and more of colours and textures.
        pooling: `"avg"` or `"max"`, the mean or the largest value of each channel of a map; what a stage puts out as a
            vector is taken as it is.
        batch_size: images that go through the network at once.
        on_error: `"error"` ends with the first image that cannot be read, `"skip"` leaves such images out.

    Returns:
        The features of all files that can be read, in their order.

    Raises:
        ValueError: no image, or none that can be read, a value out of range, a stage that the model has not, an export,
            or no such model or one that cannot be read.
        OSError: a published checkpoint cannot be fetched.
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
    """What `extract_features` returns, and the files that were left out."""
    network, name, pooled = _cut(model.network, stage, pooling)
    embedding = _Embedding(model.preprocessing, model.class_names, network)
    # As large as it may become: a list of rows, put together in the end, would take the memory twice.
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
    """As `scoring.Scoring` has it: the numbers for each image are no logits here."""

    preprocessing: Preprocessing
    class_names: tuple[str, ...]
    network: keras.Model

    def logits(self, images: np.ndarray) -> np.ndarray:
        return np.asarray(self.network.predict_on_batch(images), "float32")


def _cut(model: keras.Model, stage: str | None, pooling: str) -> tuple[keras.Model, str, bool]:
    """The model up to a stage, pooled; what the stage is called; and whether it put out a map."""
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
    """The call whose output is made into classes, before it is pooled; `None` where a model inside does that."""
    makers = {id(output): node for node in nodes for output in node.outputs}
    classifier = classifier_of(model)
    node = next((node for node in nodes if node.operation is classifier), None)
    while node is not None:
        node = makers.get(id(node.input_tensors[0]))
        if node is None or not isinstance(node.operation, POOLED):
            return node
    return None
