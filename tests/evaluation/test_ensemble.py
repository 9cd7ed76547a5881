"""Mixtures by hand and in NumPy; fitted weights by their optimality and by two other solvers; intervals by coverage."""

import math
import re
from dataclasses import FrozenInstanceError, fields, replace
from functools import partial

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import softmax

from polynet_keras.basics import extras
from polynet_keras.data.protocol import Preprocessing
from polynet_keras.evaluation.ensemble import (
    check_members,
    evaluate_ensemble,
    fit_weights,
    weighted_sum,
)
from polynet_keras.evaluation.metrics import Counts
from polynet_keras.evaluation.paired import Paired
from polynet_keras.evaluation.pooling import pool
from polynet_keras.evaluation.scores import Scores

PREPROCESSING = Preprocessing(75, 86, (0.5,), (0.5,))


def nets(seed, images, classes, skills, crops=1):
    """Scores of nets that err independently, the more skilled the less."""
    random = np.random.default_rng(seed)
    labels = random.integers(0, classes, images)
    scores = []
    for i, skill in enumerate(skills):
        logits = random.normal(0, 1.5, (images, crops, classes))
        logits[np.arange(images), :, labels] += skill
        scores.append(
            Scores(
                logits=logits.astype("float32"),
                labels=labels,
                indices=np.arange(images),
                class_names=tuple(f"class {label}" for label in range(classes)),
                model=f"net {i}",
                weights_hash=f"{i:064}",
                dataset=f"data {seed}",
                fingerprint=f"{seed:064}",
                preprocessing=replace(PREPROCESSING, image_size=75 + i),
                seconds=1.0,
            )
        )
    return scores


def probabilities_of(scores):
    return [softmax(member.logits[:, 0].astype("float64"), axis=1) for member in scores]


def of_labels(members, labels):
    return np.stack([member[range(len(labels)), labels] for member in members], axis=1)


def loss_of(members, labels, weights):
    return -np.mean([math.log(p) for p in of_labels(members, labels) @ weights])


def by_em(members, labels, steps=3000):
    """The EM algorithm of mixture weights: each is the mean of the member's responsibilities."""
    of_label = of_labels(members, labels)
    weights = np.full(len(members), 1 / len(members))
    for _ in range(steps):
        responsibilities = weights * of_label
        weights = (responsibilities / responsibilities.sum(axis=1, keepdims=True)).mean(axis=0)
    return weights


def by_slsqp(members, labels):
    """The problem as it is stated: on the simplex."""
    of_label = of_labels(members, labels)
    count = len(members)
    return minimize(
        lambda weights: -np.log(of_label @ weights).mean(),
        np.full(count, 1 / count),
        method="SLSQP",
        bounds=[(1e-9, 1)] * count,
        constraints={"type": "eq", "fun": lambda weights: weights.sum() - 1},
        options={"ftol": 1e-12},
    ).x


def assert_optimal(members, labels, weights, tolerance=1e-5):
    """The KKT conditions: the loss falls by 1 along each weight that is above 0, and by no more along the others."""
    assert weights.sum() == pytest.approx(1, abs=1e-12)
    assert weights.min() >= 0
    of_label = of_labels(members, labels)
    of_label = of_label[of_label.any(axis=1)]
    slopes = (of_label / (of_label @ weights)[:, None]).mean(axis=0)
    assert slopes.max() <= 1 + tolerance
    assert np.abs(weights * (slopes - 1)).max() <= tolerance


def test_mixture_by_hand():
    first, second = np.array([[0.5, 0.5], [0.2, 0.8]]), np.array([[0.9, 0.1], [0.6, 0.4]], "float32")
    found = weighted_sum([first, second], [0.25, 0.75])
    assert found.dtype == "float64"
    np.testing.assert_allclose(found, [[0.8, 0.2], [0.5, 0.5]], atol=1e-7)
    np.testing.assert_array_equal(weighted_sum([first, second], [1, 0]), first)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    ("images", "classes", "skills"), [(400, 10, (1, 2, 3)), (60, 3, (1, 1.2)), (500, 5, (0.5, 0.6, 0.7, 2.0, 2.2))]
)
def test_fitted_weights_are_optimal_and_those_of_other_solvers(seed, images, classes, skills):
    scores = nets(seed, images, classes, skills)
    members, labels = probabilities_of(scores), scores[0].labels
    weights = fit_weights(members, labels)
    assert_optimal(members, labels, weights, 1e-6)
    for other in (by_em(members, labels), by_slsqp(members, labels)):
        assert loss_of(members, labels, weights) <= loss_of(members, labels, other) + 1e-9
        np.testing.assert_allclose(weights, other, atol=2e-3)
    assert loss_of(members, labels, weights) < min(Counts.of(member, labels).loss for member in members)


def with_probabilities(of_label):
    """Two classes, of which the first is right."""
    return [np.stack([column, 1 - column], axis=1) for column in of_label.T], np.zeros(len(of_label), int)


DEGENERATE = {
    "zeros": lambda random, shape: random.beta(0.5, 0.5, shape) * (random.random(shape) < 0.6),
    "far below": lambda random, shape: np.exp(-random.exponential(200, shape)),
    "each right alone": lambda random, shape: np.eye(shape[1])[random.integers(0, shape[1], shape[0])],
    "one for one image": lambda random, shape: np.eye(shape[1])[(np.arange(shape[0]) == 0).astype(int)],
}


@pytest.mark.parametrize("kind", DEGENERATE)
def test_degenerate_members(kind):
    for seed in range(20):
        random = np.random.default_rng(seed)
        shape = int(random.integers(1, 800)), int(random.integers(2, 7))
        members, labels = with_probabilities(DEGENERATE[kind](random, shape))
        assert_optimal(members, labels, fit_weights(members, labels))


def test_members_that_are_always_wrong_get_the_same():
    members, labels = with_probabilities(np.zeros((5, 4)))
    np.testing.assert_allclose(fit_weights(members, labels), 0.25)


def test_one_net_for_one_image():
    """Three images: one net is sure and right for two and sure and wrong for one, the other is right for that alone."""
    members, labels = with_probabilities(np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]]))
    np.testing.assert_allclose(fit_weights(members, labels), [2 / 3, 1 / 3], atol=1e-6)


def test_members_that_say_the_same_get_the_same():
    scores = nets(0, 200, 4, (1, 2))
    first, second = probabilities_of(scores)
    alone = fit_weights([first, second], scores[0].labels)
    doubled = fit_weights([first, first, second], scores[0].labels)
    assert doubled[0] == pytest.approx(doubled[1], abs=1e-9)
    np.testing.assert_allclose([doubled[:2].sum(), doubled[2]], alone, atol=1e-5)


def test_a_perfect_member_gets_everything():
    scores = nets(0, 200, 4, (1, 2))
    perfect = np.eye(4)[scores[0].labels]
    weights = fit_weights([*probabilities_of(scores), perfect], scores[0].labels)
    np.testing.assert_allclose(weights, [0, 0, 1], atol=1e-7)


def test_what_cannot_be_fitted():
    member = np.full((3, 2), 0.5)
    for members, labels, message in (
        ([member[:0]] * 2, [], "of the same 0 images, at least one; got the shapes (0, 2), (0, 2)"),
        ([member, member[:2]], [0, 1, 0], "of the same 3 images, at least one; got the shapes (3, 2), (2, 2)"),
        ([member] * 2, [0, 1, 2], "labels must be at least 0, below the 2 classes"),
        ([member] * 2, [0, 1, -1], "labels must be at least 0, below the 2 classes"),
    ):
        with pytest.raises(ValueError, match=re.escape(message)):
            fit_weights(members, np.array(labels, int))


@pytest.mark.parametrize("seed", range(3))
def test_report_with_given_weights(seed):
    scores = nets(seed, 300, 6, (1, 2, 1.5))
    report = evaluate_ensemble(scores, [2, 1, 1])
    members, labels = probabilities_of(scores), scores[0].labels
    mixed = 0.5 * members[0] + 0.25 * members[1] + 0.25 * members[2]
    assert [member.weight for member in report.members] == [0.5, 0.25, 0.25]
    assert [member.name for member in report.members] == ["net 0", "net 1", "net 2"]
    hits = [(p.argmax(axis=1) == labels) for p in (*members, mixed)]
    assert [member.counts.top1_hits for member in report.members] == [h.sum() for h in hits[:3]]
    assert report.best is report.members[1]
    assert report.mixture.top1_hits == hits[3].sum()
    assert report.mixture.images == 300
    assert report.fitted_images == 0
    assert report.gain == pytest.approx((hits[3].sum() - hits[1].sum()) / 300)
    assert report.paired == Paired.of(hits[3], hits[1])
    losses = [loss_of([p], labels, [1.0]) for p in (*members, mixed)]
    assert report.loss_gain == pytest.approx(min(losses[:3]) - losses[3])


def test_uniform_mixture_beats_nets_that_err_independently():
    report = evaluate_ensemble(nets(0, 2000, 10, (2, 2, 2)))
    assert [member.weight for member in report.members] == pytest.approx([1 / 3] * 3)
    assert report.paired.better == 0
    assert report.loss_gain > 0


def test_each_member_is_pooled():
    scores = nets(0, 40, 5, (1, 2), crops=10)
    pooling = partial(pool, pooling="max", on="logits")
    report = evaluate_ensemble(scores, pooling=pooling)
    mixed = sum(softmax(member.logits.max(axis=1).astype("float64"), axis=1) for member in scores) / 2
    assert report.mixture.loss == pytest.approx(Counts.of(mixed, scores[0].labels).loss)
    mixed = sum(pool(member.logits) for member in scores) / 2
    assert evaluate_ensemble(scores).mixture.loss == pytest.approx(Counts.of(mixed, scores[0].labels).loss)


def test_fitted_on_held_out_scores():
    scores, held_out = nets(0, 300, 5, (1, 2, 1.5)), nets(1, 200, 5, (1, 2, 1.5))
    report = evaluate_ensemble(scores, "fit", held_out)
    weights = fit_weights(probabilities_of(held_out), held_out[0].labels)
    np.testing.assert_allclose([member.weight for member in report.members], weights, rtol=1e-9)
    assert report.mixture.images == 300
    assert report.fitted_images == 200


def test_nothing_is_measured_on_images_that_were_fitted_on():
    """Other labels in the measured half leave the weights as they are, those in the fitted half count nowhere."""
    scores = nets(0, 301, 5, (1, 2, 1.5))
    report = evaluate_ensemble(scores, "fit", seed=3)
    assert (report.fitted_images, report.mixture.images) == (150, 151)
    order = np.random.default_rng(3).permutation(301)
    for half, weights_change in ((order[:150], True), (order[150:], False)):
        labels = scores[0].labels.copy()
        labels[half] = (labels[half] + 1) % 5
        changed = evaluate_ensemble([replace(member, labels=labels) for member in scores], "fit", seed=3)
        pairs = list(zip(report.members, changed.members, strict=True))
        assert any(old.weight != new.weight for old, new in pairs) == weights_change
        assert any(old.counts.top1_hits != new.counts.top1_hits for old, new in pairs) != weights_change
    by_default, again = evaluate_ensemble(scores, "fit"), evaluate_ensemble(scores, "fit", seed=0)
    assert by_default.mixture.loss == again.mixture.loss != report.mixture.loss
    assert len({by_default, again, by_default}) == 2  # reports are compared by identity
    other = evaluate_ensemble(scores, "fit", seed=4)
    assert any(old.weight != new.weight for old, new in zip(report.members, other.members, strict=True))
    weights = fit_weights([p[order[:150]] for p in probabilities_of(scores)], scores[0].labels[order[:150]])
    np.testing.assert_allclose([member.weight for member in report.members], weights, atol=1e-9)


def test_saved_scores_give_the_same_report(tmp_path):
    scores = nets(0, 50, 4, (1, 2))
    for i, member in enumerate(scores):
        member.save(tmp_path / f"{i}.npz")
    loaded = [Scores.load(tmp_path / f"{i}.npz") for i in range(2)]
    check_members(loaded)
    assert evaluate_ensemble(loaded).mixture.loss == evaluate_ensemble(scores).mixture.loss


def right_by_hand(*probabilities):
    """Scores of nets by the probabilities that they give the right class, class 0 of two, of each image."""
    (scores, *_) = nets(0, len(probabilities[0]), 2, (1,))
    labels = np.zeros(len(probabilities[0]), int)
    return [
        replace(
            scores,
            labels=labels,
            logits=np.log(np.stack([of_net, 1 - np.array(of_net)], axis=-1))[:, None],
            model=f"net {i}",
            weights_hash=f"{i:064}",
        )
        for i, of_net in enumerate(probabilities)
    ]


def test_gains_by_hand():
    """Net 1 has the most hits, three of four as the mixture, and net 0 the lowest loss."""
    scores = right_by_hand([0.9, 0.9, 0.45, 0.45], [0.6, 0.05, 0.6, 0.6])
    report = evaluate_ensemble(scores)
    assert [member.counts.top1_hits for member in report.members] == [2, 3]
    assert report.best is report.members[1]
    assert report.mixture.top1_hits == 3
    assert report.gain == 0
    losses = [-np.log([0.9, 0.9, 0.45, 0.45]).mean(), -np.log([0.6, 0.05, 0.6, 0.6]).mean()]
    mixed = -np.log([0.75, 0.475, 0.525, 0.525]).mean()
    assert losses[0] < losses[1]
    assert [member.counts.loss for member in report.members] == pytest.approx(losses)
    assert report.mixture.loss == pytest.approx(mixed)
    assert report.loss_gain == pytest.approx(losses[0] - mixed)


def test_the_best_is_the_first_of_equal_ones():
    scores = right_by_hand([0.9, 0.2, 0.2, 0.2], [0.6, 0.6, 0.1, 0.1], [0.1, 0.1, 0.7, 0.7])
    report = evaluate_ensemble(scores)
    assert report.best is report.members[1]
    hits = np.mean([[0.9, 0.2, 0.2, 0.2], [0.6, 0.6, 0.1, 0.1], [0.1, 0.1, 0.7, 0.7]], axis=0) > 0.5
    assert report.gain == (hits.sum() - 2) / 4
    assert report.paired == Paired.of(hits, np.array([True, True, False, False]))


def changed(scores, **fields):
    return [scores[0], replace(scores[1], **fields)]


def test_members_that_do_not_fit_each_other():
    scores = nets(0, 8, 3, (1, 2))
    names, labels = scores[0].class_names, scores[0].labels
    shorter = dict(logits=scores[1].logits[:-1], labels=labels[:-1], indices=np.arange(7))
    two = dict(class_names=names[:2], logits=scores[1].logits[..., :2])
    for members, message in (
        (scores[:1], "a mixture has two members or more; got the scores of 1"),
        (
            changed(scores, class_names=(names[0], names[2], names[1])),
            "net 0 and net 1 have the same classes in another order (3 and 3): class 1 is class 1 and class 2; a",
        ),
        (changed(scores, class_names=(*names[:2], "cat")), "other classes (3 and 3): class 2 is class 2 and cat; a"),
        (changed(scores, **two), "other classes (3 and 2): class 2 is class 2 and not there; a"),
        (changed(scores, fingerprint="f", dataset="data x"), "were evaluated on other data: data 0 and data x"),
        (changed(scores, **shorter), "on other images of data 0: 1 have the scores of one alone"),
        (changed(scores, labels=(labels + 1) % 3), "net 0 and net 1 have other labels for 8 images of data 0"),
    ):
        with pytest.raises(ValueError, match=re.escape(message)):
            evaluate_ensemble(members)


def test_held_out_scores_that_do_not_fit():
    scores, held_out = nets(0, 8, 3, (1, 2)), nets(1, 8, 3, (1, 2))
    names = held_out[0].class_names
    reordered = [replace(member, class_names=names[::-1]) for member in held_out]
    same = [replace(member, fingerprint=scores[0].fingerprint, indices=np.arange(5, 13)) for member in held_out]
    for others, message in (
        (held_out[:1], "2 members need as many scores to fit on; got 1"),
        (held_out[::-1], "the scores to fit on are of another model, net 1, where net 0 is due: the same models in"),
        (reordered, "the same classes in another order"),
        (changed(held_out, fingerprint="f"), "were evaluated on other data"),
        (changed(held_out, preprocessing=PREPROCESSING), "net 1 has another protocol or other crops in the scores to"),
        (changed(held_out, logits=held_out[1].logits.repeat(10, axis=1)), "net 1 has another protocol or other crops"),
        (scores, "8 images of data 0 are among those to fit on; nothing may be measured on them"),
        (same, "3 images of data 0 are among those to fit on"),
    ):
        with pytest.raises(ValueError, match=re.escape(message)):
            evaluate_ensemble(scores, "fit", others)
    # A model is known by its weights, whatever it is called.
    trained_on = changed(held_out, weights_hash="f" * 64)
    with pytest.raises(ValueError, match="the scores to fit on are of another model, net 1, where net 1 is due"):
        evaluate_ensemble(scores, "fit", trained_on)
    assert evaluate_ensemble(scores, "fit", changed(held_out, model="the same")).fitted_images == 8
    apart = [replace(member, indices=np.arange(8, 16)) for member in same]
    assert evaluate_ensemble(scores, "fit", apart).fitted_images == 8


def test_weights_that_are_not_accepted():
    message = r"the weights of the mixture, .*, must be 2 numbers of at least 0, one for each member, not all 0"
    for weights in ([1], [1, 2, 3], [0, 0], [1, -1], [3, -0.5], [1, math.nan], [1, math.inf], [[1, 1]]):
        with pytest.raises(ValueError, match=message):
            evaluate_ensemble(nets(0, 8, 3, (1, 2)), weights)


def test_a_member_may_have_no_weight():
    report = evaluate_ensemble(nets(0, 20, 3, (1, 2)), [0, 0.5])
    assert [member.weight for member in report.members] == [0.0, 1.0]
    assert report.mixture.top1_hits == report.members[1].counts.top1_hits


def test_a_report_is_a_value_that_stays_and_of_plain_types():
    scores = nets(0, 20, 3, (1, 2))
    report, again = evaluate_ensemble(scores, [1, 1]), evaluate_ensemble(scores, [1, 1])
    for value, other in ((report, again), (report.best, again.best)):
        assert value != other  # each is equal to itself alone
        assert value == value
        assert value != replace(value)
        assert hash(value)
        with pytest.raises(FrozenInstanceError):
            setattr(value, fields(value)[0].name, None)
    assert isinstance(report.members, tuple)
    assert {type(member.weight) for member in report.members} == {float}
    assert {type(end) for end in report.paired.interval()} == {float}


def test_the_gradient_is_that_of_the_loss(monkeypatch):
    """By central differences, at weights that are no minimum."""
    taken = {}

    def take(objective, start, **options):
        taken.update(objective=objective)
        return minimize(objective, start, **options)

    monkeypatch.setattr("scipy.optimize.minimize", take)
    scores = nets(0, 40, 4, (1, 2, 1.5))
    fit_weights(probabilities_of(scores), scores[0].labels)
    roots = np.array([0.3, 0.9, 0.5])
    _, gradient = taken["objective"](roots)
    for i, step in enumerate(1e-6 * np.eye(3)):
        (above, _), (below, _) = (taken["objective"](roots + sign * step) for sign in (1, -1))
        assert gradient[i] == pytest.approx((above - below) / 2e-6, rel=1e-6, abs=1e-9)


def test_fitting_needs_scipy(monkeypatch):
    monkeypatch.setattr(extras, "find_spec", lambda module: None)
    with pytest.raises(ValueError, match="not installed: scipy"):
        fit_weights([np.full((3, 2), 0.5)] * 2, np.zeros(3, int))


def test_other_mistakes():
    scores, held_out = nets(0, 8, 3, (1, 2)), nets(1, 8, 3, (1, 2))
    with pytest.raises(ValueError, match="mixture='best' must be 'uniform', 'fit', or a number for each member"):
        evaluate_ensemble(scores, "best")
    for weights in ("uniform", [1, 1], np.ones(2)):
        with pytest.raises(ValueError, match="scores to fit on are used only with mixture='fit'; got mixture="):
            evaluate_ensemble(scores, weights, held_out)
    with pytest.raises(ValueError, match="of the same 0 images, at least one"):
        evaluate_ensemble(nets(0, 1, 3, (1, 2)), "fit")
