"""Exact evaluation of a model on a dataset: every image counts once."""

import dataclasses
import json
import os
from dataclasses import dataclass

import numpy as np

from polynet_keras.basics.names import number_of
from polynet_keras.basics.news import tell
from polynet_keras.basics.stderr_filter import warned
from polynet_keras.data.decoder_warnings import log_damaged
from polynet_keras.data.examples import Examples
from polynet_keras.data.unreadable import Unreadable
from polynet_keras.evaluation.identity import environment
from polynet_keras.evaluation.judging import Judged, judged
from polynet_keras.evaluation.loading import Runtime, TrainedModel, trained
from polynet_keras.evaluation.metrics import Counts
from polynet_keras.evaluation.pooling import Pooling
from polynet_keras.evaluation.results import Result
from polynet_keras.evaluation.scores import Scores
from polynet_keras.evaluation.scoring import Pace, check_pooling, fitted_to, score, scored
from polynet_keras.models.macs import count_macs


@dataclass(frozen=True, eq=False)
class Evaluation:
    """The results of an evaluation.

    Attributes:
        result: the row of the table.
        judged: the counts, and the results of each image.
        class_names: names by label.
        skipped: for the index of each image that cannot be read, the reason.

    Examples:
        >>> from polynet_keras.data import open_split
        >>> evaluation = evaluate(trained, open_split(photos), crops=10)
        >>> evaluation.class_names, evaluation.counts.confusion.tolist()
        (('cat', 'dog'), [[5, 0], [0, 5]])
        >>> evaluation.skipped
        {}
    """

    result: Result
    judged: Judged
    class_names: tuple[str, ...]
    skipped: dict[int, str]

    @property
    def counts(self) -> Counts:
        return self.judged.counts


def evaluate(
    model: TrainedModel | str | os.PathLike,
    examples: Examples,
    *,
    batch_size: int = 32,
    crops: int = 1,
    pooling: Pooling | None = None,
    scores: str | os.PathLike | None = None,
    on_error: str = "error",
) -> Evaluation:
    """Evaluates a model under its protocol.

    Args:
        model: a name for `polynet_keras.load_model`, or the model that it returned.
        examples: a dataset of its classes, or of some of them.
        batch_size: images, or crops of one image, in one forward pass; it bounds the memory.
        crops: crops per image: 1, 10 or 144.
        pooling: pooling of the crops; by default `Pooling()`.
        scores: an `.npz` file of `Scores`. It is written if it does not exist. If it exists, the model does not run,
            and another pooling of the same scores costs nothing.
        on_error: `"error"` or `"skip"`: how to handle an image that cannot be read.

    Raises:
        ValueError: arguments are out of range, classes are not the model's, an image cannot be read, or the file has
            other scores.

    Examples:
        >>> from polynet_keras.data import open_split
        >>> evaluation = evaluate(trained, open_split(photos))
        >>> evaluation.counts.images, evaluation.counts.top1
        (10, 1.0)
    """
    pooling = pooling or Pooling()
    model = trained(model)
    check_pooling(model, pooling, crops)
    examples = fitted_to(model, examples)
    unreadable = Unreadable(on_error)
    if scores is None:
        hash_ = model.weights_hash
        pace = Pace()
        batches = scored(model, examples, unreadable, batch_size=batch_size, crops=crops)
        found = judged(pace.of(batches), pooling, examples)
        seconds = pace.seconds
    else:
        cached = _cached_scores(model, examples, unreadable, scores, batch_size, crops)
        found = judged([(cached.logits, cached.labels, cached.indices)], pooling, examples)
        hash_, seconds = cached.weights_hash, cached.seconds
    counts = found.counts
    counts.check_complete(len(examples) - len(unreadable.skipped))
    unreadable.log(len(examples))
    if warned():
        log_damaged(examples)
    network = None if isinstance(model.model, Runtime) else model.model
    result = Result(
        model=model.name,
        structure=model.structure,
        weights_hash=hash_,
        dataset=examples.name,
        fingerprint=examples.fingerprint,
        protocol=json.dumps(dataclasses.asdict(model.preprocessing)),
        crops=crops,
        pooling=str(pooling) if crops > 1 else "",
        images=counts.images,
        skipped=len(unreadable.skipped),
        top1_hits=counts.top1_hits,
        top5_hits=counts.top5_hits,
        loss=counts.loss,
        ece=counts.ece,
        seconds=seconds,
        parameters=0 if network is None else network.count_params(),
        macs=0 if network is None else count_macs(network),
        **environment(),
    )
    return Evaluation(result, found, model.class_names, unreadable.skipped)


def _cached_scores(
    model: TrainedModel,
    examples: Examples,
    unreadable: Unreadable,
    path: str | os.PathLike,
    batch_size: int,
    crops: int,
) -> Scores:
    if not os.fspath(path).endswith(".npz"):
        raise ValueError(f"scores={os.fspath(path)!r} must end in .npz")
    if not os.path.exists(path):
        scores = score(model, examples, batch_size=batch_size, crops=crops, unreadable=unreadable)
        scores.save(path)
        return scores
    scores = Scores.load(path)
    expected = {
        "weights": (scores.weights_hash, model.weights_hash),
        "images": (scores.fingerprint, examples.fingerprint),
        "protocol": (scores.preprocessing, model.preprocessing),
        "crops": (scores.logits.shape[1], crops),
    }
    differing = [what for what, (found, wanted) in expected.items() if found != wanted]
    if differing:
        raise ValueError(
            f"{os.fspath(path)}: scores of other {' and '.join(differing)} ({scores.model} on {scores.dataset}, "
            f"{number_of(scores.logits.shape[1], 'crop')}); name another file"
        )
    missing = np.setdiff1d(np.arange(len(examples)), scores.indices)
    for index in missing:
        unreadable.add(
            int(index), ValueError(f"{examples.shown_name(int(index))}: could not be read when it was scored")
        )
    tell("scores of %s taken from %s", number_of(len(scores.labels), "image"), path)
    return scores
