"""Ensembles: weighted mixtures of several models' predictions for the same images, and their gain."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import zip_longest

import numpy as np

from polynet_keras.basics.extras import require_extra
from polynet_keras.evaluation.metrics import Counts
from polynet_keras.evaluation.paired import Paired
from polynet_keras.evaluation.pooling import pool
from polynet_keras.evaluation.scores import Scores

UNIFORM, FIT = "uniform", "fit"


@dataclass(frozen=True, eq=False)
class Member:
    """One model of a mixture.

    Attributes:
        name: name of the model.
        weight: weight in the mixture, 0 to 1; all weights sum to 1.
        counts: counts of the model alone.
    """

    name: str
    weight: float
    counts: Counts


@dataclass(frozen=True, eq=False)
class EnsembleReport:
    """A mixture and its members on the same images.

    Attributes:
        dataset: name of the dataset.
        members: the members, in the order of the scores.
        best: the member with the most top-1 hits; the first of equals. It is chosen on the same images that it is
            compared on, so the gain can only look smaller than it is.
        mixture: the counts of the mixture.
        paired: correct predictions of the mixture and the best member, with the interval and the p-value of `gain`.
        fitted_images: number of images that the weights were fitted on, none of which counts; 0 for other weights.
    """

    dataset: str
    members: tuple[Member, ...]
    best: Member
    mixture: Counts
    paired: Paired
    fitted_images: int

    @property
    def gain(self) -> float:
        """Top-1 accuracy of the mixture minus that of the best member, -1 to 1."""
        return self.paired.difference

    @property
    def loss_gain(self) -> float:
        """The lowest loss of a member minus the mixture's loss, in nats."""
        return min(member.counts.loss for member in self.members) - self.mixture.loss


def evaluate_ensemble(
    members: Sequence[Scores],
    mixture: str | Sequence[float] = UNIFORM,
    fit: Sequence[Scores] | None = None,
    *,
    pooling: Callable[[np.ndarray], np.ndarray] = pool,
    seed: int = 0,
) -> EnsembleReport:
    """Evaluates a mixture of models, each with its own crops, input size and preprocessing.

    Images that the weights were fitted on are never evaluated.

    Args:
        members: scores of two or more models on the same images: cached ones, or `score` of live models.
        mixture: the weights of the members: `"uniform"`; `"fit"`, see `fit_weights`; or one number ≥ 0 for each, which
            are divided by their sum.
        fit: scores of the same members on other images, for the fit. Without them, the fit uses a random half of the
            images, and the evaluation uses the other half.
        pooling: function from the logits of an image's crops to its probabilities; by default `pool(logits)`.
        seed: seed of the halves.

    Raises:
        ValueError: the members do not match each other or the held-out scores, or the weights are not accepted.

    Examples:
        >>> from polynet_keras.data import open_split
        >>> scores = score(trained, open_split(photos))
        >>> report = evaluate_ensemble([scores, scores])
        >>> report.mixture.top1, report.gain
        (1.0, 0.0)
    """
    check_members(members)
    given = None if isinstance(mixture, str) else _shares(mixture, len(members))
    if given is None and mixture not in (UNIFORM, FIT):
        raise ValueError(f"mixture={mixture!r} must be {UNIFORM!r}, {FIT!r}, or a number for each member")
    if fit is not None:
        if given is not None or mixture != FIT:
            raise ValueError(f"scores to fit on are used only with mixture={FIT!r}; got mixture={mixture!r}")
        _check_held_out(members, fit)

    labels = members[0].labels
    probabilities = [pooling(scores.logits) for scores in members]
    fitted_images = 0
    if given is not None:
        shares = given
    elif mixture == UNIFORM:
        shares = np.full(len(members), 1 / len(members))
    elif fit is not None:
        fitted_images = len(fit[0].labels)
        shares = fit_weights([pooling(scores.logits) for scores in fit], fit[0].labels)
    else:
        order = np.random.default_rng(seed).permutation(len(labels))
        fitted_images = len(labels) // 2
        fitted, measured = np.split(order, [fitted_images])
        shares = fit_weights([of_member[fitted] for of_member in probabilities], labels[fitted])
        probabilities, labels = [of_member[measured] for of_member in probabilities], labels[measured]

    parts = [
        Member(scores.model, float(share), Counts.of(of_member, labels))
        for scores, share, of_member in zip(members, shares, probabilities, strict=True)
    ]
    best = max(range(len(parts)), key=lambda i: parts[i].counts.top1_hits)
    mixed = weighted_sum(probabilities, shares)
    hits, best_hits = (predictions.argmax(axis=1) == labels for predictions in (mixed, probabilities[best]))
    return EnsembleReport(
        dataset=members[0].dataset,
        members=tuple(parts),
        best=parts[best],
        mixture=Counts.of(mixed, labels),
        paired=Paired.of(hits, best_hits),
        fitted_images=fitted_images,
    )


def weighted_sum(members: Sequence[np.ndarray], weights: Sequence[float] | np.ndarray) -> np.ndarray:
    """Returns the weighted sum of the members' probabilities.

    Args:
        members: float arrays (images, classes) of probabilities.
        weights: one for each member, of sum 1.

    Returns:
        float64 array (images, classes).
    """
    mixed = np.zeros(members[0].shape)
    for probabilities, weight in zip(members, weights, strict=True):
        mixed += weight * probabilities.astype("float64")
    return mixed


def fit_weights(members: Sequence[np.ndarray], labels: np.ndarray) -> np.ndarray:
    """Returns the weights, ≥ 0 and of sum 1, that minimize the mean cross-entropy of the mixture.

    The loss is convex in the weights. Adding the sum of the weights to the loss does not change the minimum, and makes
    the weights sum to 1 without a constraint (their multiplier in the Karush-Kuhn-Tucker conditions is 1). As squares,
    the weights are at least 0. So no constraint remains, and BFGS minimizes over the square roots.

    Args:
        members: float arrays (images, classes) of probabilities.
        labels: integer array (images,).

    Returns:
        float64 array (members,). Members with equal predictions get equal weights.

    Raises:
        ValueError: there are no images, the arrays' shapes differ, labels are not classes, or SciPy is not installed.
    """
    require_extra("data", "scipy")
    from scipy.optimize import minimize

    images, classes = members[0].shape
    if not images or any(probabilities.shape != (len(labels), classes) for probabilities in members):
        raise ValueError(
            f"to fit weights, each member needs probabilities (images, classes) of the same {len(labels)} images, at "
            f"least one; got the shapes {', '.join(str(probabilities.shape) for probabilities in members)}"
        )
    if labels.min() < 0 or labels.max() >= classes:
        raise ValueError(f"labels must be at least 0, below the {classes} classes of the probabilities")
    of_label = np.stack([probabilities[np.arange(images), labels] for probabilities in members], axis=1)
    best = of_label.max(axis=1, keepdims=True)
    # A factor that an image's probabilities have in common adds a constant to the loss. An image that no member gives
    # a probability above 0 has no say in the weights.
    ratios = np.divide(of_label, best, out=np.ones(of_label.shape), where=best > 0)

    def objective(roots: np.ndarray) -> tuple[float, np.ndarray]:
        mixed = ratios @ roots**2
        gradient = 2 * roots * (1 - (ratios / mixed[:, None]).mean(axis=0))
        return roots @ roots - np.log(mixed).mean(), gradient

    start = np.full(len(members), len(members) ** -0.5)
    weights = minimize(objective, start, jac=True, method="BFGS", options={"gtol": 1e-8}).x ** 2
    return weights / weights.sum()


def check_members(scores: Sequence[Scores]) -> None:
    """Raises a `ValueError` unless the scores are of two or more models, with the same classes and images."""
    if len(scores) < 2:
        raise ValueError(f"a mixture has two members or more; got the scores of {len(scores)}")
    first = scores[0]
    for other in scores[1:]:
        both = f"{first.model} and {other.model}"
        _check_classes(first, other)
        if first.fingerprint != other.fingerprint:
            raise ValueError(f"{both} were evaluated on other data: {first.dataset} and {other.dataset}")
        if not np.array_equal(first.indices, other.indices):
            alone = len(np.setxor1d(first.indices, other.indices))
            raise ValueError(
                f"{both} were evaluated on other images of {first.dataset}: {alone:,} have the scores of one alone"
            )
        if not np.array_equal(first.labels, other.labels):
            differing = np.count_nonzero(first.labels != other.labels)
            raise ValueError(f"{both} have other labels for {differing:,} images of {first.dataset}")


def _shares(weights: Sequence[float], members: int) -> np.ndarray:
    values = np.asarray(weights, "float64")
    if values.shape != (members,) or not np.isfinite(values).all() or values.min() < 0 or values.sum() == 0:
        raise ValueError(
            f"the weights of the mixture, {', '.join(map(str, weights))}, must be {members} numbers of at least 0, one "
            "for each member, not all 0"
        )
    return values / values.sum()


def _check_classes(first: Scores, other: Scores) -> None:
    if first.class_names == other.class_names:
        return
    same = sorted(first.class_names) == sorted(other.class_names)
    found = f"{len(first.class_names)} and {len(other.class_names)}"
    pairs = enumerate(zip_longest(first.class_names, other.class_names, fillvalue="not there"))
    label, (name, other_name) = next(pair for pair in pairs if len(set(pair[1])) == 2)
    raise ValueError(
        f"{first.model} and {other.model} have {'the same classes in another order' if same else 'other classes'} "
        f"({found}): class {label} is {name} and {other_name}; a mixture needs the same classes in the same order"
    )


def _check_held_out(members: Sequence[Scores], held_out: Sequence[Scores]) -> None:
    if len(held_out) != len(members):
        raise ValueError(f"{len(members)} members need as many scores to fit on; got {len(held_out)}")
    check_members(held_out)
    for member, other in zip(members, held_out, strict=True):
        _check_classes(member, other)
        if member.weights_hash != other.weights_hash:
            raise ValueError(
                f"the scores to fit on are of another model, {other.model}, where {member.model} is due: the same "
                "models in the same order are needed"
            )
        if member.preprocessing != other.preprocessing or member.logits.shape[1] != other.logits.shape[1]:
            raise ValueError(f"{member.model} has another protocol or other crops in the scores to fit on")
    if members[0].fingerprint == held_out[0].fingerprint:
        shared = len(np.intersect1d(members[0].indices, held_out[0].indices))
        if shared:
            raise ValueError(
                f"{shared:,} images of {members[0].dataset} are among those to fit on; nothing may be measured on them"
            )
