"""A model's logits for every image of a dataset, crop by crop."""

import dataclasses
import time
from collections import Counter
from collections.abc import Iterator, Sequence

import keras
import numpy as np
from tqdm import tqdm

from polynet_keras.data.crops import CROPS, Crop, crop_plan, views
from polynet_keras.data.decoding import Unreadable
from polynet_keras.data.examples import Examples
from polynet_keras.data.imagenet import imagenet_classes
from polynet_keras.data.pipeline import decoded_images, evaluation_batches, reading
from polynet_keras.data.protocol import Preprocessing
from polynet_keras.engine.network import Network
from polynet_keras.evaluation.loading import TrainedModel
from polynet_keras.evaluation.results import weights_hash
from polynet_keras.evaluation.scores import Scores

Scored = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Logits (images, crops, classes), labels (images,), indices (images,)."""


def score(
    trained: TrainedModel,
    examples: Examples,
    *,
    batch_size: int = 32,
    crops: int = 1,
    unreadable: Unreadable | None = None,
) -> Scores:
    """The logits of a model for all images of a dataset, in memory: 4 bytes for each image, crop and class.

    Args:
        trained: the model.
        examples: a dataset of its classes, or of some of them.
        batch_size: images, or crops of one image, that go through the model at once.
        crops: of each image, one of 1, 10 and 144.
        unreadable: takes the images that cannot be read; by default they are errors.

    Raises:
        ValueError: as `evaluate`.
    """
    examples = fitted_to(trained, examples)
    start = time.perf_counter()
    # As large as it may become: a list of parts, put together in the end, would take the memory twice.
    logits = np.empty((len(examples), crops, len(trained.class_names)), "float32")
    labels, indices = (np.empty(len(examples), "int64") for _ in range(2))
    filled = 0
    for part, *about in scored(trained, examples, unreadable or Unreadable(), batch_size=batch_size, crops=crops):
        place = slice(filled, filled := filled + len(part))
        logits[place], labels[place], indices[place] = part, *about
    seconds = time.perf_counter() - start
    if not filled:
        raise ValueError(f"{examples.name} has no image that can be read")
    return Scores(
        logits=logits[:filled],
        labels=labels[:filled],
        indices=indices[:filled],
        class_names=trained.class_names,
        model=trained.name,
        weights_hash=weights_hash(trained.model),
        dataset=examples.name,
        fingerprint=examples.fingerprint,
        preprocessing=trained.preprocessing,
        seconds=seconds,
    )


def scored(
    trained: TrainedModel,
    examples: Examples,
    unreadable: Unreadable,
    *,
    batch_size: int = 32,
    crops: int = 1,
    workers: int = 1,
    worker: int = 0,
) -> Iterator[Scored]:
    """Logits of a worker's share of a dataset, batch by batch, with a progress bar.

    Args:
        trained: the model.
        examples: a dataset whose labels are the model's.
        unreadable: takes the images that cannot be read.
        batch_size: images, or crops of one image, that go through the model at once.
        crops: of each image, one of 1, 10 and 144.
        workers: how many share the dataset; the `Counts` of all of them add up to those of the dataset.
        worker: which of them this is, from 0.

    Yields:
        Logits, float32 (images, crops, classes); labels, int64 (images,); and indices, int64 (images,).
    """
    if crops not in CROPS:
        raise ValueError(f"crops={crops!r} must be one of {CROPS}")
    if batch_size < 1:
        raise ValueError(f"batch_size={batch_size} must be at least 1")
    model = logits_model(trained.model)
    if crops == 1:
        batches = evaluation_batches(
            examples, trained.preprocessing, batch_size, workers=workers, worker=worker, unreadable=unreadable
        )
    else:
        batches = decoded_images(examples, workers=workers, worker=worker, unreadable=unreadable)
    with reading(unreadable), tqdm(total=-(-len(examples) // workers), unit=" images", disable=None) as bar:
        for images, labels, indices, valid in batches.dataset.as_numpy_iterator():
            if not valid.any():
                continue
            if crops == 1:
                logits = model.predict_on_batch(images)[:, np.newaxis]
            else:
                height, width = images.shape[1:3]
                try:
                    plan = crop_plan(height, width, trained.preprocessing, crops)
                except ValueError as error:  # so narrow that it would be too large when resized
                    index = int(indices[0])
                    unreadable.add(index, ValueError(f"{examples.shown_name(index)}: {error}"))
                    continue
                logits = crop_logits(model, images[0], trained.preprocessing, plan, batch_size)[np.newaxis]
            yield logits[valid].astype("float32"), labels[valid], indices[valid]
            bar.update(int(valid.sum()))


def crop_logits(
    model: keras.Model, image: np.ndarray, preprocessing: Preprocessing, plan: Sequence[Crop], batch_size: int
) -> np.ndarray:
    """The logits of all crops of one image, `batch_size` crops at a time.

    Args:
        model: that gives logits.
        image: uint8 array (height, width, channels).
        preprocessing: the protocol.
        plan: what `crop_plan` gives for an image of this size.
        batch_size: crops that go through the model at once.

    Returns:
        float array (crops, classes).
    """
    inputs = views(image, preprocessing, plan)
    parts = []
    for start in range(0, len(plan), batch_size):
        batch = preprocessing.normalize(inputs[start : start + batch_size])
        if keras.config.image_data_format() == "channels_first":
            batch = np.moveaxis(batch, -1, 1)
        parts.append(model.predict_on_batch(batch))
    return np.concatenate(parts)


def logits_model(model: keras.Model) -> keras.Model:
    """The model without its last softmax, sharing the weights.

    Raises:
        ValueError: it ends in another activation, of which logits cannot be told.
    """
    make = Network if isinstance(model, Network) else keras.Model
    last = model.layers[-1]
    activation = getattr(last, "activation", None)
    if isinstance(last, keras.layers.Softmax) or (
        isinstance(last, keras.layers.Activation) and activation is keras.activations.softmax
    ):
        return make(model.inputs, last.input)
    if not isinstance(last, keras.layers.Dense) or activation not in (
        keras.activations.softmax,
        keras.activations.linear,
    ):
        raise ValueError(
            f"the model {model.name!r} ends in {type(last).__name__} with the activation "
            f"{getattr(activation, '__name__', activation)}; expected a softmax, or a Dense layer without activation"
        )
    if activation is keras.activations.linear:
        return model
    head = keras.layers.Dense.from_config({**last.get_config(), "activation": "linear"})
    logits = make(model.inputs, head(last.input))
    head.set_weights(last.get_weights())
    return logits


def fitted_to(trained: TrainedModel, examples: Examples) -> Examples:
    """The examples with the labels of the model, which are told by the names of the classes, and its channels.

    A dataset may lack classes, and that of ImageNet may call its classes by WordNet's numbers. Images of other channels
    are converted, as `predict` does it.

    Raises:
        ValueError: the dataset has a class that the model does not know.
    """
    examples = dataclasses.replace(examples, channels=trained.preprocessing.channels)
    if examples.class_names == trained.class_names:
        return examples
    known = [trained.class_names]
    if trained.class_names == tuple(name for _, name in imagenet_classes()):
        known.append(tuple(wordnet for wordnet, _ in imagenet_classes()))
    for names in known:
        # Two of ImageNet's classes are cranes: such a name tells nothing.
        once = {name for name, count in Counter(names).items() if count == 1}
        if set(examples.class_names) <= once:
            return examples.relabelled(trained.class_names, [names.index(name) for name in examples.class_names])
    unknown = [name for name in examples.class_names if trained.class_names.count(name) != 1]
    raise ValueError(
        f"{examples.name} has {len(unknown)} classes that {trained.name} does not know, or not one alone, such as "
        f"{unknown[0]!r}; "
        f"it knows {', '.join(map(repr, trained.class_names[:3]))} and so on, {len(trained.class_names)} in all"
    )
