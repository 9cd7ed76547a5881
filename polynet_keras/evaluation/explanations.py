"""Pictures of explanations: of image files, and of the mistakes in a report."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import keras
import numpy as np
from absl import logging

from polynet_keras.basics.names import shown
from polynet_keras.basics.progress import progress
from polynet_keras.data.image_files import read_image
from polynet_keras.data.image_paths import ImagePaths
from polynet_keras.evaluation.cut_model import CutModel
from polynet_keras.evaluation.explaining import View, batch_size, explained
from polynet_keras.evaluation.loading import Runtime, TrainedModel
from polynet_keras.evaluation.overlay import overlay, shown_part
from polynet_keras.evaluation.pages import LARGE, THUMBNAIL, Picture, name

WORST = 8
"""Most pictures of a report that get an overlay, so that overlays cost little time."""


@dataclass(frozen=True, eq=False)
class Explanation:
    """Explanation of an image file.

    Attributes:
        image: path of the file.
        error: the reason if it cannot be read, or `None`.
        picture: uint8 array (height, width, 3): the part of the image that the model gets.
        overlays: the picture under a map, for each view.
        probabilities: float array (classes,).
        label: index of the explained class.
    """

    image: str
    error: str | None = None
    picture: np.ndarray | None = None
    overlays: tuple[np.ndarray, ...] = ()
    probabilities: np.ndarray | None = None
    label: int = 0


def explanations(
    model: TrainedModel, images: ImagePaths, class_index: int | None, views: Sequence[View]
) -> Iterator[Explanation]:
    """Explains image files, with a progress bar.

    Args:
        model: the model to explain.
        images: the image files.
        class_index: the class to explain; by default the most probable one of each image.
        views: the views of each image.

    Yields:
        One explanation for each file, in their order.

    Raises:
        ValueError: as `explain`.
    """
    waiting: list[tuple[int, np.ndarray, np.ndarray]] = []
    errors = dict(images.refused)
    following = 0

    def done(until: int) -> Iterator[Explanation]:
        """Yields the explanations of the files before index `until`."""
        nonlocal following
        found = _explained(model, [image for _, _, image in waiting], class_index, views) if waiting else iter(())
        pictures = {index: picture for index, picture, _ in waiting}
        waiting.clear()
        for index in range(following, until):
            path = images.paths[index]
            if index in errors:
                yield Explanation(path, errors[index].removeprefix(f"{shown(path)}: "))
                continue
            probabilities, label, maps = next(found)
            overlays = tuple(overlay(pictures[index], one) for one in maps)
            yield Explanation(path, None, pictures[index], overlays, probabilities, label)
        following = until

    size = batch_size(len(images.sizes))
    with progress(len(images.sizes)) as advance:
        for index in images.sizes:
            try:
                protocol = model.preprocessing
                image = read_image(images.paths[index], protocol.channels, protocol.least_side)
                waiting.append((index, shown_part(image, protocol, LARGE), protocol(image)))
            except ValueError as error:
                errors[index] = str(error)
            advance(1)
            if len(waiting) == size:
                yield from done(index + 1)
        yield from done(len(images))


def _explained(
    model: TrainedModel, prepared: list[np.ndarray], class_index: int | Sequence[int] | None, views: Sequence[View]
) -> Iterator[tuple[np.ndarray, int, list[np.ndarray]]]:
    """Yields for each preprocessed image its probabilities, the explained class, and a map for each view."""
    batch = np.stack(prepared)
    if keras.config.image_data_format() == "channels_first":
        batch = np.moveaxis(batch, -1, 1)
    probabilities, maps = explained(model, batch, class_index, views)
    for i, row in enumerate(probabilities):
        label = class_index if isinstance(class_index, int) else class_index[i] if class_index else row.argmax()
        yield row, int(label), [of_view[i] for of_view in maps]


def default_stage(model: TrainedModel) -> str:
    """Returns the default stage of `explain`.

    Raises:
        ValueError: as `explain`, for the model.
    """
    side = model.preprocessing.image_size
    return CutModel(model.network, sides=(side, side)).stage


def with_overlays(model: TrainedModel, pictures: Sequence[Picture]) -> tuple[Picture, ...]:
    """Adds overlays to the first pictures of a report: the evidence for the class that the model predicted.

    Overlays show Grad-CAM of the default stage of `explain`. Pictures of a model without such a stage, or of an export,
    stay unchanged.

    Args:
        model: the model that gave the probabilities.
        pictures: pictures with images at full size.
    """
    chosen = [(picture, picture.image) for picture in pictures[:WORST] if picture.image is not None]
    if isinstance(model.model, Runtime) or not chosen:
        return tuple(pictures)
    try:
        stage = default_stage(model)
        labels = [int(picture.probabilities.argmax()) for picture, _ in chosen]
        prepared = [model.preprocessing(image) for _, image in chosen]
        found = list(_explained(model, prepared, labels, [View(None, "grad-cam")]))
    except Exception as error:  # any error: the evaluation is done, and its report matters more
        logging.warning("the report shows no Grad-CAM: %s", error)
        return tuple(pictures)
    beside = {}
    for (picture, image), (_, label, (map_,)) in zip(chosen, found, strict=True):
        text = f"support for {name(shown(model.class_names[label]))}: Grad-CAM of {name(stage)}"
        seen = overlay(shown_part(image, model.preprocessing, THUMBNAIL), map_)
        beside[id(picture)] = replace(picture, overlays=((seen, text),))
    return tuple(beside.get(id(picture), picture) for picture in pictures)
