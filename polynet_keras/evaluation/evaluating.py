"""Exact evaluation of a model on a dataset: every image counts once."""

import dataclasses
import json
import os
import time
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from absl import logging

from polynet_keras.basics.stderr_filter import warned
from polynet_keras.data.decoder_warnings import log_damaged
from polynet_keras.data.decoding import Unreadable
from polynet_keras.data.examples import Examples
from polynet_keras.evaluation.loading import TrainedModel
from polynet_keras.evaluation.metrics import Counts
from polynet_keras.evaluation.pooling import Pooling
from polynet_keras.evaluation.report import Mistake, worst_mistakes
from polynet_keras.evaluation.results import Result, environment, weights_hash
from polynet_keras.evaluation.scores import Scores
from polynet_keras.evaluation.scoring import Scored, fitted_to, score, scored
from polynet_keras.models.cost import count_macs

MISTAKES = 24
"""Of the worst mistakes, how many a report shows."""


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
    unreadable = Unreadable(on_error)
    if scores_file is None:
        hash_ = weights_hash(trained.model)
        start = time.perf_counter()
        batches = scored(trained, examples, unreadable, batch_size=batch_size, crops=crops)
        counts, mistakes = _judged(batches, pooling, examples)
        seconds = time.perf_counter() - start
    else:
        scores = _cached_scores(trained, examples, unreadable, scores_file, batch_size, crops)
        counts, mistakes = _judged([(scores.logits, scores.labels, scores.indices)], pooling, examples)
        hash_, seconds = scores.weights_hash, scores.seconds
    counts.check_complete(len(examples) - len(unreadable.skipped))
    unreadable.log(len(examples))
    if warned():
        log_damaged(examples)
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
    return Evaluation(result, counts, mistakes, unreadable.skipped)


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
    mistakes = []
    for _, index, label, probabilities in worst:
        try:
            mistakes.append(Mistake(examples.shown_name(index), examples.image(index), label, probabilities))
        except ValueError as error:  # it was there when it was counted
            logging.warning("a mistake is left out of the report: %s", error)
    return counts, tuple(mistakes)


def _cached_scores(
    trained: TrainedModel,
    examples: Examples,
    unreadable: Unreadable,
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
        "weights": (scores.weights_hash, weights_hash(trained.model)),
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
        unreadable.add(
            int(index), ValueError(f"{examples.shown_name(int(index))}: could not be read when it was scored")
        )
    logging.info("scores of %d images taken from %s", len(scores.labels), path)
    return scores
