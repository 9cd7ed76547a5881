import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from polynet_keras.data.sampling import TrainingOrder, evaluation_share


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
