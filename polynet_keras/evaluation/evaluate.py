"""Exact evaluation of a model on a dataset: every image once, scored crop by crop."""

import dataclasses
import json
import os
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import keras
import numpy as np
from absl import logging
from tqdm import tqdm

from polynet_keras.data.crops import CROPS, crop_plan, views
from polynet_keras.data.decoding import Unreadable
from polynet_keras.data.examples import Examples
from polynet_keras.data.imagenet import imagenet_classes
from polynet_keras.data.pipeline import decoded_images, evaluation_batches, reading
from polynet_keras.data.preprocessing import Preprocessing
from polynet_keras.evaluation.loading import TrainedModel
from polynet_keras.evaluation.metrics import Counts
from polynet_keras.evaluation.pooling import pool
from polynet_keras.evaluation.report import Mistake, worst_mistakes
from polynet_keras.evaluation.results import Result, environment, weights_hash
from polynet_keras.evaluation.scores import Scores
from polynet_keras.models.cost import count_macs
from polynet_keras.models.network import Network

MISTAKES = 24
"""Of the worst mistakes, how many a report shows."""

Scored = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Logits (images, crops, classes), labels (images,), indices (images,)."""


@dataclass(frozen=True)
class Pooling:
    """How the crops' scores become the image's; see `pooling.pool`."""

    pooling: str = "selective"
    fraction: float = 0.3
    on: str = "probabilities"

    def __post_init__(self):
        self(np.zeros((0, 1, 2), "float32"))  # refuses what is out of range, before anything is computed

    def __call__(self, logits: np.ndarray) -> np.ndarray:
        return pool(logits, self.pooling, self.fraction, self.on)

    def __str__(self) -> str:
        share = f" {self.fraction:g}" if self.pooling == "selective" else ""
        return f"{self.pooling}{share} of {self.on}"


@dataclass(frozen=True, eq=False)
class Evaluation:
    """What an evaluation found.

    Attributes:
        result: the row of the table.
        counts: of all that was counted.
        mistakes: the worst of them, with pictures.
        skipped: for the index of each image that cannot be read, why.
    """

    result: Result
    counts: Counts
    mistakes: tuple[Mistake, ...]
    skipped: dict[int, str]


def evaluate(
    trained: TrainedModel,
    examples: Examples,
    *,
    batch_size: int = 32,
    crops: int = 1,
    pooling: Pooling | None = None,
    scores_file: str | os.PathLike | None = None,
    on_error: str = "error",
) -> Evaluation:
    """Evaluates a model under its protocol.

    Args:
        trained: the model.
        examples: a dataset of its classes, or of some of them.
        batch_size: images, or crops of one image, that go through the model at once: what bounds the memory.
        crops: of each image, one of 1, 10 and 144.
        pooling: of the crops; by default `Pooling()`.
        scores_file: an `.npz` file of `Scores`: written if it is not there; if it is, the model is not run, and another
            pooling of the same scores costs nothing.
        on_error: `"error"` or `"skip"`: what to do about an image that cannot be read.

    Raises:
        ValueError: arguments out of range, classes that are not the model's, an image that cannot be read, or a file of
            other scores.
    """
    pooling = pooling or Pooling()
    examples = fitted_to(trained, examples)
    hash_ = weights_hash(trained.model)
    unreadable = Unreadable(on_error)
    start = time.perf_counter()
    if scores_file is None:
        batches = scored(trained, examples, unreadable, batch_size=batch_size, crops=crops)
        counts, mistakes = _judged(batches, pooling, examples)
        seconds = time.perf_counter() - start
    else:
        scores = _cached_scores(trained, examples, unreadable, hash_, scores_file, batch_size, crops)
        counts, mistakes = _judged([(scores.logits, scores.labels, scores.indices)], pooling, examples)
        seconds = scores.seconds
    counts.check_complete(len(examples) - len(unreadable.skipped))
    unreadable.log(len(examples))
    result = Result(
        model=trained.name,
        structure=trained.structure,
        weights_hash=hash_,
        dataset=examples.name,
        fingerprint=examples.fingerprint,
        protocol=json.dumps(dataclasses.asdict(trained.preprocessing)),
        crops=crops,
        pooling=str(pooling) if crops > 1 else "",
        images=counts.images,
        skipped=len(unreadable.skipped),
        top1_hits=counts.top1_hits,
        top5_hits=counts.top5_hits,
        loss=counts.loss,
        ece=counts.ece,
        seconds=seconds,
        parameters=trained.model.count_params(),
        macs=count_macs(trained.model),
        **environment(),
    )
    return Evaluation(result, counts, mistakes, dict(unreadable.skipped))


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
        seconds=time.perf_counter() - start,
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
                try:
                    crop_plan(images.shape[1], images.shape[2], trained.preprocessing, crops)
                except ValueError as error:  # so narrow that it would be too large when resized
                    index = int(indices[0])
                    unreadable.add(index, ValueError(f"{examples.name_of(index)}: {error}"))
                    continue
                logits = crop_logits(model, images[0], trained.preprocessing, crops, batch_size)[np.newaxis]
            yield logits[valid].astype("float32"), labels[valid], indices[valid]
            bar.update(int(valid.sum()))


def crop_logits(
    model: keras.Model, image: np.ndarray, preprocessing: Preprocessing, crops: int, batch_size: int
) -> np.ndarray:
    """The logits of all crops of one image, `batch_size` crops at a time.

    Args:
        model: that gives logits.
        image: uint8 array (height, width, channels).
        preprocessing: the protocol.
        crops: how many.
        batch_size: crops that go through the model at once.

    Returns:
        float array (crops, classes).
    """
    inputs = views(image, preprocessing, crops)
    parts = []
    for start in range(0, crops, batch_size):
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


def _judged(batches: Iterable[Scored], pooling: Pooling, examples: Examples) -> tuple[Counts, tuple[Mistake, ...]]:
    """Counts and the worst mistakes, of batches that are forgotten one after the other."""
    counts: Counts | None = None
    worst: list[tuple[float, int, int, np.ndarray]] = []
    for logits, labels, indices in batches:
        probabilities = pooling(logits)
        counted = Counts.of(probabilities, labels)
        counts = counted if counts is None else counts + counted
        for i in worst_mistakes(probabilities, labels, MISTAKES):
            worst.append((probabilities[i, labels[i]], int(indices[i]), int(labels[i]), probabilities[i]))
        worst = sorted(worst, key=lambda mistake: mistake[:2])[:MISTAKES]
    if counts is None:
        raise ValueError(f"{examples.name} has no image that can be read")
    mistakes = (
        Mistake(examples.name_of(index), examples.image(index), label, probabilities)
        for _, index, label, probabilities in worst
    )
    return counts, tuple(mistakes)


def _cached_scores(
    trained: TrainedModel,
    examples: Examples,
    unreadable: Unreadable,
    hash_: str,
    path: str | os.PathLike,
    batch_size: int,
    crops: int,
) -> Scores:
    if not os.fspath(path).endswith(".npz"):
        raise ValueError(f"scores_file={os.fspath(path)!r} must end in .npz")
    if not os.path.exists(path):
        scores = score(trained, examples, batch_size=batch_size, crops=crops, unreadable=unreadable)
        scores.save(path)
        return scores
    scores = Scores.load(path)
    expected = {
        "weights": (scores.weights_hash, hash_),
        "images": (scores.fingerprint, examples.fingerprint),
        "protocol": (scores.preprocessing, trained.preprocessing),
        "crops": (scores.logits.shape[1], crops),
    }
    differing = [what for what, (found, wanted) in expected.items() if found != wanted]
    if differing:
        raise ValueError(
            f"{os.fspath(path)}: scores of other {' and '.join(differing)} ({scores.model} on {scores.dataset}, "
            f"{scores.logits.shape[1]} crops); name another file"
        )
    missing = np.setdiff1d(np.arange(len(examples)), scores.indices)
    for index in missing:
        unreadable.add(int(index), ValueError(f"{examples.name_of(int(index))}: could not be read when it was scored"))
    logging.info("scores of %d images taken from %s", len(scores.labels), path)
    return scores
