"""A model's logits for every image of a dataset, crop by crop."""

import dataclasses
import os
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Protocol

import keras
import numpy as np

from polynet_keras.basics.checks import check_integer
from polynet_keras.basics.names import number_of, quoted
from polynet_keras.basics.progress import progress
from polynet_keras.data.crops import Crop, check_crops, crop_plan, least_side, views
from polynet_keras.data.imagenet import imagenet_classes
from polynet_keras.data.protocol import Preprocessing
from polynet_keras.evaluation.loading import Runtime, TrainedModel, trained
from polynet_keras.evaluation.pooling import Pooling
from polynet_keras.evaluation.scores import Scores

if TYPE_CHECKING:
    from polynet_keras.data.examples import Examples
    from polynet_keras.data.unreadable import Unreadable

Scored = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Logits (images, crops, classes), labels (images,), indices (images,)."""


class Scoring(Protocol):
    """A `TrainedModel`, or another model that outputs a row of numbers for each preprocessed image.

    Attributes:
        preprocessing: preprocessing from an image to the input.
        class_names: at least one name.
    """

    @property
    def preprocessing(self) -> Preprocessing: ...

    @property
    def class_names(self) -> tuple[str, ...]: ...

    def logits(self, images: np.ndarray) -> np.ndarray:
        """Returns float32 (batch, numbers) for preprocessed images."""
        ...


class Pace:
    """Measures the time for images without one-time work: the first batch waits for the pipeline and for tracing."""

    def __init__(self):
        self._first_end = self._end = 0.0
        self._first_images = self._images = 0

    def of(self, batches: Iterable[Scored]) -> Iterator[Scored]:
        """Yields the same batches, and measures the time of their consumption."""
        for batch in batches:
            yield batch
            self._end = time.perf_counter()
            self._images += len(batch[0])
            if not self._first_images:
                self._first_end, self._first_images = self._end, self._images

    @property
    def seconds(self) -> float:
        """Time for all images at the pace after the first batch; 0 if there was no other."""
        if self._images == self._first_images:
            return 0.0
        return (self._end - self._first_end) * self._images / (self._images - self._first_images)


def score(
    model: TrainedModel | str | os.PathLike,
    examples: "Examples",
    *,
    batch_size: int = 32,
    crops: int = 1,
    unreadable: "Unreadable | None" = None,
) -> Scores:
    """Returns the logits of a model for all images of a dataset, in memory: 4 bytes per image, crop and class.

    Args:
        model: a name for `polynet_keras.load_model`, or the model that it returned.
        examples: a dataset of its classes, or of some of them.
        batch_size: images, or crops of one image, in one forward pass.
        crops: crops per image: 1, 10 or 144.
        unreadable: receives the images that cannot be read; by default they are errors.

    Raises:
        ValueError: as `evaluate`.

    Examples:
        >>> from polynet_keras.data import open_split
        >>> scores = score(trained, open_split(photos), crops=10)
        >>> scores.logits.shape
        (10, 10, 2)
    """
    from polynet_keras.data.unreadable import Unreadable

    model = trained(model)
    examples = fitted_to(model, examples)
    pace = Pace()
    # Allocated at its largest size: a list of parts, joined at the end, would take twice the memory.
    logits = np.empty((len(examples), crops, len(model.class_names)), "float32")
    labels, indices = (np.empty(len(examples), "int64") for _ in range(2))
    filled = 0
    batches = scored(model, examples, unreadable or Unreadable(), batch_size=batch_size, crops=crops)
    for part, *about in pace.of(batches):
        place = slice(filled, filled := filled + len(part))
        logits[place], labels[place], indices[place] = part, *about
    if not filled:
        raise ValueError(f"{examples.name} has no image that can be read")
    return Scores(
        logits=logits[:filled],
        labels=labels[:filled],
        indices=indices[:filled],
        class_names=model.class_names,
        model=model.name,
        weights_hash=model.weights_hash,
        dataset=examples.name,
        fingerprint=examples.fingerprint,
        preprocessing=model.preprocessing,
        seconds=pace.seconds,
    )


def scored(
    model: Scoring,
    examples: "Examples",
    unreadable: "Unreadable",
    *,
    batch_size: int = 32,
    crops: int = 1,
    workers: int = 1,
    worker: int = 0,
) -> Iterator[Scored]:
    """Yields logits of a worker's share of a dataset, batch by batch, with a progress bar.

    Args:
        model: the model to score.
        examples: a dataset whose labels are the model's.
        unreadable: receives the images that cannot be read.
        batch_size: images, or crops of one image, in one forward pass.
        crops: crops per image: 1, 10 or 144.
        workers: number of workers that share the dataset; their `Counts` add up to those of the dataset.
        worker: index of this worker, from 0.

    Yields:
        Logits, float32 (images, crops, classes); labels, int64 (images,); and indices, int64 (images,).
    """
    # tf.data's: `predict` scores without it on other backends.
    from polynet_keras.data.pipeline import decoded_images, evaluation_batches
    from polynet_keras.data.unreadable import reading

    check_crops("crops", crops)
    check_integer("batch_size", batch_size, 1)
    if crops == 1:
        batches = evaluation_batches(
            examples, model.preprocessing, batch_size, workers=workers, worker=worker, unreadable=unreadable
        )
    else:
        side = least_side(model.preprocessing, crops)
        batches = decoded_images(examples, side, workers=workers, worker=worker, unreadable=unreadable)
    with reading(unreadable), progress(-(-len(examples) // workers)) as advance:
        for images, labels, indices, valid in batches.dataset.as_numpy_iterator():
            advance(int((indices >= 0).sum()))
            if not valid.any():
                continue
            if crops == 1:
                logits = model.logits(images)[:, np.newaxis]
            else:
                height, width = images.shape[1:3]
                try:
                    plan = crop_plan(height, width, model.preprocessing, crops)
                except ValueError as error:  # so narrow that it would be too large when resized
                    index = int(indices[0])
                    unreadable.add(index, ValueError(f"{examples.shown_name(index)}: {error}"))
                    continue
                logits = crop_logits(model.logits, images[0], model.preprocessing, plan, batch_size)[np.newaxis]
            yield logits[valid], labels[valid], indices[valid]


def check_pooling(model: TrainedModel, pooling: Pooling, crops: int) -> None:
    """Refuses to pool logits that are unknown up to one number per crop, except by their mean."""
    if isinstance(model.model, Runtime) and crops > 1 and pooling.on == "logits" and pooling.pooling != "mean":
        raise ValueError(
            f"{model.name} is exported and gives probabilities alone, which {pooling.pooling} pooling cannot take for "
            "logits; pool on probabilities, or the mean"
        )


def crop_logits(
    logits: Callable[[np.ndarray], np.ndarray],
    image: np.ndarray,
    preprocessing: Preprocessing,
    plan: Sequence[Crop],
    batch_size: int,
) -> np.ndarray:
    """Returns the logits of all crops of one image, computed `batch_size` crops at a time.

    Args:
        logits: function that returns the logits of preprocessed images.
        image: uint8 array (height, width, channels).
        preprocessing: the protocol.
        plan: the result of `crop_plan` for an image of this size.
        batch_size: crops in one forward pass.

    Returns:
        float array (crops, classes).
    """
    inputs = views(image, preprocessing, plan)
    parts = []
    for start in range(0, len(plan), batch_size):
        batch = preprocessing.normalize(inputs[start : start + batch_size])
        if keras.config.image_data_format() == "channels_first":
            batch = np.moveaxis(batch, -1, 1)
        parts.append(logits(batch))
    return np.concatenate(parts)


def fitted_to(model: TrainedModel, examples: "Examples") -> "Examples":
    """Returns the examples with the model's labels, matched by the names of the classes, and its channels.

    A dataset may lack classes, and ImageNet's may name its classes by WordNet ids. Images with other channels are
    converted, as in `predict`.

    Raises:
        ValueError: the model does not know a class of the dataset, or knows it more than once.
    """
    examples = dataclasses.replace(examples, channels=model.preprocessing.channels)
    if examples.class_names == model.class_names:
        return examples
    known = [model.class_names]
    if model.class_names == tuple(name for _, name in imagenet_classes()):
        known.append(tuple(wordnet for wordnet, _ in imagenet_classes()))
    for names in known:
        # Two of ImageNet's classes are cranes: such a name identifies no class.
        once = {name for name, count in Counter(names).items() if count == 1}
        if set(examples.class_names) <= once:
            return examples.relabelled(model.class_names, [names.index(name) for name in examples.class_names])
    unknown = [name for name in examples.class_names if name not in model.class_names]
    wrong = unknown or [name for name in examples.class_names if model.class_names.count(name) > 1]
    shown_names = ", ".join(map(quoted, wrong[:3])) + (f" and {len(wrong) - 3} more" if len(wrong) > 3 else "")
    raise ValueError(
        f"{examples.name} has {number_of(len(wrong), 'class', 'classes')} that {model.name} "
        f"{'does not know' if unknown else 'knows more than once'}: {shown_names}; it knows "
        f"{', '.join(map(quoted, model.class_names[:3]))} and so on, {len(model.class_names)} in all"
    )
