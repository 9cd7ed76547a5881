import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from polynet_keras.data.sampling import TrainingOrder, evaluation_share, next_of_class


def batches(count, size, seed, epoch, workers, group=1, first_step=0):
    """What all workers have, batch by batch: lists [step][worker] of examples."""
    steps = -(-count // size)
    parts = []
    for worker in range(workers):
        order = TrainingOrder(count, size, seed, workers, worker, group=group)
        assert order.steps == steps
        assert order.sizes[first_step:].sum() == len(order.share(epoch, first_step))
        parts.append(np.split(order.share(epoch, first_step), np.cumsum(order.sizes[first_step:])[:-1]))
    return [[part[step].tolist() for part in parts] for step in range(steps - first_step)]


@given(
    count=st.integers(1, 300),
    per_worker=st.integers(1, 9),
    workers=st.integers(1, 7),
    group=st.sampled_from([1, 2]),
    seed=st.integers(0, 2**32 - 1),
)
def test_workers_share_an_epoch_disjointly_and_completely(count, per_worker, workers, group, seed):
    size = per_worker * workers * group
    steps = batches(count, size, seed, 3, workers, group)
    assert sorted(i for step in steps for part in step for i in part) == list(range(count))
    for step in steps[:-1]:
        assert [len(part) for part in step] == [per_worker * group] * workers
    lengths = [len(part) for part in steps[-1]]
    assert max(lengths) - min(lengths) <= group
    # The same global batches for any number of workers: those of one.
    alone = batches(count, size, seed, 3, 1)
    assert [[i for part in step for i in part] for step in steps] == [step[0] for step in alone]
    if group == 2:  # each pair of an epoch's order is on one worker
        order = TrainingOrder(count, size, seed).order(3)
        held = [set(part) for step in steps for part in step]
        assert all(any({a, b} <= part for part in held) for a, b in zip(order[::2], order[1::2], strict=False))


@given(count=st.integers(1, 100), each=st.integers(1, 4), workers=st.integers(1, 3), replicas=st.integers(1, 4))
def test_replicas_have_what_as_many_workers_would(count, each, workers, replicas):
    size = each * workers * replicas
    alone = batches(count, size, 7, 1, workers * replicas)
    for worker in range(workers):
        order = TrainingOrder(count, size, 7, workers, worker, replicas)
        parts = np.split(order.share(1), np.cumsum(order.sizes.ravel())[:-1])
        expected = [part for step in alone for part in step[worker * replicas : (worker + 1) * replicas]]
        assert [part.tolist() for part in parts] == expected


@given(count=st.integers(1, 100), per_worker=st.integers(1, 5), step=st.integers(0, 99))
def test_the_rest_of_an_epoch_is_what_was_left(count, per_worker, step):
    size = per_worker * 6
    step %= -(-count // size)
    for workers in (1, 2, 3):
        whole = batches(count, size, 7, 1, workers)
        assert batches(count, size, 7, 1, workers, first_step=step) == whole[step:]


def test_the_order_is_a_function_of_seed_and_epoch():
    order = TrainingOrder(50, 8, 4)
    np.testing.assert_array_equal(order.order(2), TrainingOrder(50, 16, 4, workers=2, worker=1).order(2))
    others = [TrainingOrder(50, 8, seed).order(epoch).tolist() for seed in (4, 5) for epoch in (2, 3)]
    assert len(set(map(tuple, others))) == 4
    # Seed and epoch are no sum: (0, 1) and (1, 0) differ.
    assert TrainingOrder(50, 8, 0).order(1).tolist() != TrainingOrder(50, 8, 1).order(0).tolist()


def test_every_example_is_at_every_place_equally_often():
    """Over 2,000 epochs: binomial counts of mean 200, six standard deviations."""
    firsts = np.bincount([TrainingOrder(10, 4, 0).order(epoch)[0] for epoch in range(2000)], minlength=10)
    assert (np.abs(firsts - 200) < 6 * np.sqrt(2000 * 0.1 * 0.9)).all()


@given(count=st.integers(1, 200), batch_size=st.integers(1, 50), workers=st.integers(1, 7))
def test_evaluation_counts_each_example_once_with_equal_full_batches(count, batch_size, workers):
    shares = [evaluation_share(count, batch_size, workers, worker) for worker in range(workers)]
    assert len({len(share) for share in shares}) == 1
    assert len(shares[0]) % batch_size == 0
    assert np.concatenate([share[share >= 0] for share in shares]).tolist() == list(range(count))
    assert all((np.diff((share < 0).astype(int)) >= 0).all() for share in shares)


SIZES = [[1], [3], [1, 1], [1, 4], [2, 3], [5, 1, 1], [1, 2, 7], [3, 3, 3], [2, 0, 5], [1, 1, 1, 9], [6, 1, 3, 2, 1]]
"""Of small classes, one of which has nothing."""


def labels_of(sizes):
    return np.random.default_rng(0).permutation(np.repeat(np.arange(len(sizes)), sizes))


@pytest.mark.parametrize("sizes", SIZES)
def test_each_class_is_drawn_equally_often(sizes):
    """In each epoch and over all of them, as far as whole numbers can; and each of its examples as often as another."""
    labels = labels_of(sizes)
    count, present = len(labels), np.flatnonzero(sizes)
    order = TrainingOrder(count, 4, 5, labels=labels)
    of_class, of_example = np.zeros(len(sizes), int), np.zeros(count, int)
    for epoch in range(40):
        draws = order.order(epoch)
        assert len(draws) == count == len(set(draws.tolist()))  # what is drawn twice is told apart
        drawn = np.bincount(labels[draws % count], minlength=len(sizes))
        assert np.ptp(drawn[present]) <= 1
        of_class += drawn
        of_example += np.bincount(draws % count, minlength=count)
        assert np.ptp(of_class[present]) <= 1
        for label in present:
            assert np.ptp(of_example[labels == label]) <= 1
    if count % len(present):
        assert len({tuple(np.bincount(labels[order.order(epoch) % count])) for epoch in range(20)}) > 1


@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize(("per_worker", "group"), [(1, 1), (2, 1), (1, 2), (3, 2)])
def test_any_number_of_workers_has_the_same_balanced_batches_from_any_step(sizes, per_worker, group):
    labels = labels_of(sizes)
    size = per_worker * 6 * group  # for 1, 2 and 3 workers
    whole = TrainingOrder(len(labels), size, 5, group=group, labels=labels).order(2).tolist()
    for workers in (1, 2, 3):
        orders = [TrainingOrder(len(labels), size, 5, workers, w, group=group, labels=labels) for w in range(workers)]
        for first in range(orders[0].steps):
            parts = [np.split(o.share(2, first), np.cumsum(o.sizes[first:].ravel())[:-1]) for o in orders]
            together = [i for step in zip(*parts, strict=True) for part in step for i in part.tolist()]
            assert together == whole[first * size :]


def test_a_balanced_order_is_a_function_of_seed_and_epoch_and_of_nothing_that_was_drawn_before():
    labels = labels_of([2, 9, 30])
    order = TrainingOrder(41, 8, 4, labels=labels)
    for epoch in (7, 0, 3):
        again = TrainingOrder(41, 16, 4, workers=2, worker=1, labels=labels)
        np.testing.assert_array_equal(order.order(epoch), again.order(epoch))
    others = [TrainingOrder(41, 8, seed, labels=labels).order(epoch).tolist() for seed in (4, 5) for epoch in (2, 3)]
    assert len(set(map(tuple, others))) == 4


def slow_balanced(order, labels, epoch):
    """The draws of an epoch, turn by turn, as they have been since balanced orders are there: runs go on with them."""
    classes, draws = np.unique(labels), []
    each, rest = divmod(len(labels), len(classes))
    for place, label in enumerate(classes):
        members = np.flatnonzero(labels == label)
        first, last = (each * e + (rest * e - place + len(classes) - 1) // len(classes) for e in (epoch, epoch + 1))
        begun = first // len(members)
        for cycle in range(begun, -(-last // len(members))):
            turn = members
            start, stop = max(first - cycle * len(members), 0), min(last - cycle * len(members), len(members))
            if stop - start < len(members):
                turn = np.random.default_rng((order.seed, cycle, place + 1)).permutation(members)[start:stop]
            draws.append(turn + len(labels) * (cycle - begun))
    draws = np.concatenate(draws)
    return draws[np.random.default_rng((order.seed, epoch)).permutation(len(draws))]


@pytest.mark.parametrize("sizes", [*SIZES, [50, 1], [3], [1, 1, 1], [7, 0, 13]])
@pytest.mark.parametrize("seed", [0, 3])
def test_balanced_orders_are_those_of_older_runs(sizes, seed):
    labels = labels_of(sizes)
    order = TrainingOrder(len(labels), 4, seed, labels=labels)
    for epoch in range(12):
        np.testing.assert_array_equal(order.order(epoch), slow_balanced(order, labels, epoch))


def test_a_class_of_one_beside_many_is_no_loop(monkeypatch):
    """It has half of the draws, each a turn of its own: no more is shuffled than the parts of turns, and the epoch."""
    labels = np.repeat([0, 1], [10_000, 1])
    order, make, made = TrainingOrder(10_001, 64, 0, labels=labels), np.random.default_rng, []
    monkeypatch.setattr(np.random, "default_rng", lambda seed: made.append(seed) or make(seed))
    assert sorted(np.bincount(labels[order.order(1) % 10_001])) == [5000, 5001]
    assert len(made) <= 3


@pytest.mark.parametrize("sizes", SIZES)
def test_the_next_one_of_a_class_goes_around_it(sizes):
    labels = np.random.default_rng(0).permutation(labels_of(sizes))
    after, counts = next_of_class(labels)
    for index, label in enumerate(labels):
        assert counts[index] == sizes[label]
        around = [index]
        while len(around) < counts[index]:
            around.append(int(after[around[-1]]))
        assert sorted(around) == np.flatnonzero(labels == label).tolist()
        assert after[around[-1]] == index


def test_an_example_of_a_large_class_is_drawn_in_every_turn_once_and_in_another_order():
    """Of 100 and 4: an epoch draws 52 of each, so that the large class is gone through in two epochs, less 4."""
    labels = np.repeat([0, 1], [100, 4])
    order = TrainingOrder(104, 8, 0, labels=labels)
    first, second, third, fourth = ([d % 104 for d in order.order(e) if d % 104 < 100] for e in range(4))
    assert len({*first}) == 52
    assert len({*first, *second}) == 100
    assert {*first} != {*third}
    assert {*second} != {*fourth}


def test_one_worker_of_one_replica_is_the_default():
    order = TrainingOrder(5, 2, 0)
    assert order.sizes.tolist() == [[2], [2], [1]]
    assert sorted(order.share(0)) == [0, 1, 2, 3, 4]
    assert evaluation_share(3, 2).tolist() == [0, 1, 2, -1]
    with pytest.raises(dataclasses.FrozenInstanceError):
        order.seed = 1  # its sizes are kept


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0, 4, 0), "0 examples for batches of 4"),
        ((4, 0, 0), "4 examples for batches of 0"),
        ((10, 5, 0, 2), "global_batch_size=5 must be a multiple of 2: equal parts for workers=2"),
        ((10, 5, 0, 1, 0, 2), "=5 must be a multiple of 2: equal parts for workers=1 of replicas=2"),
        ((10, 6, 0, 1, 0, 0), "replicas=0 must be at least 1"),
        ((10, 6, 0, 2, 0, 1, 2), "=6 must be a multiple of 4: equal parts of pairs that are mixed for workers=2"),
        ((10, 6, 0, 2, 2), "worker=2 of workers=2"),
        ((10, 6, 0, 0), "worker=0 of workers=0"),
        ((10, 6, 0, 0, -1), "worker=-1 of workers=0"),
        ((10, 6, 0, -1, -2), "worker=-2 of workers=-1"),
        ((10, 6, 0, 2, -1), "worker=-1 of workers=2"),
    ],
)
def test_impossible_shares_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        TrainingOrder(*arguments)


def test_impossible_evaluation_shares_are_refused():
    with pytest.raises(ValueError, match="batch_size=0"):
        evaluation_share(3, 0)
    for worker, workers in ((3, 2), (2, 2), (-1, 2), (0, 0), (-1, 0), (-2, -1)):
        with pytest.raises(ValueError, match=f"worker={worker} of workers={workers}: expected one of 0 to"):
            evaluation_share(3, 1, workers, worker)
    assert evaluation_share(3, 1, 2, 1).tolist() == [1, 2]


REPEATED = {
    "count": st.integers(3, 120),
    "images": st.integers(2, 9),
    "repeats": st.integers(2, 5),
    "workers": st.integers(1, 3),
    "epoch": st.integers(0, 7),
}


def repeated(count, size, repeats, workers=1, worker=0, group=1, seed=7):
    return TrainingOrder(count, size, seed, workers, worker, group=group, repeats=repeats)


@given(**REPEATED, group=st.sampled_from([1, 2]))
def test_repeated_examples_are_shared_as_others_are(count, images, repeats, workers, epoch, group):
    """The same global batches for any number of workers, and from any step on."""
    size = images * repeats * workers * group
    alone = repeated(count, size, repeats).order(epoch)
    parts = [repeated(count, size, repeats, workers, worker, group) for worker in range(workers)]
    shares = [np.split(part.share(epoch), np.cumsum(part.sizes)[:-1]) for part in parts]
    together = [np.concatenate([share[step] for share in shares]) for step in range(parts[0].steps)]
    np.testing.assert_array_equal(np.concatenate(together), alone)
    last = parts[0].steps - 1
    np.testing.assert_array_equal(parts[0].share(epoch, last), shares[0][last])
    assert len(alone) == count == len(np.unique(alone))  # each draw once: no image is augmented twice in one way


@given(**REPEATED)
def test_each_example_comes_so_often_before_any_comes_again(count, images, repeats, workers, epoch):
    """In `repeats` epochs all are seen equally often; an epoch has count / repeats of them, and two that it shares."""
    orders = [repeated(count, images * repeats, repeats).order(e) % count for e in range(repeats)]
    np.testing.assert_array_equal(np.bincount(np.concatenate(orders), minlength=count), repeats)
    for order in orders:
        assert len(np.unique(order)) <= count / repeats + 2
    others = [repeated(count, images * repeats, repeats).order(repeats + e) for e in range(repeats)]
    np.testing.assert_array_equal(np.bincount(np.concatenate(others) % count, minlength=count), repeats)


@given(**REPEATED)
def test_a_full_batch_has_its_examples_as_often_as_they_repeat(count, images, repeats, workers, epoch):
    """But for those that it shares with its neighbours; and neighbours in it are different examples."""
    size = images * repeats
    order = repeated(count, size, repeats).order(epoch) % count
    for batch in np.split(order, range(size, count, size)):
        if len(batch) == size:
            counts = np.bincount(batch, minlength=count)
            assert (counts[counts > 0] == repeats).sum() >= images - 1
            assert (counts > 0).sum() <= images + 1
            assert (batch[1:] != batch[:-1]).all()


def test_repeats_and_equal_classes_are_not_both():
    with pytest.raises(ValueError, match="repeats=2 of examples whose classes are drawn equally often; leave one out"):
        TrainingOrder(4, 2, 0, labels=np.arange(4), repeats=2)
