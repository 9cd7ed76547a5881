"""The batcher by itself: what it collects, whom a failure hurts, who leaves the queue."""

import asyncio
import threading

import numpy as np
import pytest

from polynet_keras.deployment.serving.batching import Batcher, BatchError, QueueFullError


class Model:
    """Doubles its inputs; stops before that while `gate` is closed, and raises where an input is negative."""

    def __init__(self):
        self.batches = []
        self.gate = threading.Event()
        self.gate.set()
        self.entered = threading.Event()

    def __call__(self, values):
        self.batches.append(values[:, 0].tolist())
        self.entered.set()
        assert self.gate.wait(30)
        if (values < 0).any():
            raise RuntimeError("a negative input")
        return 2 * values


def played(scene, max_batch_size=4, max_delay=0.0, max_queue=100, model=None):
    """Runs a scene, a coroutine function of the batcher and the model."""
    model = model or Model()
    seen = []

    async def play():
        batcher = Batcher(model, max_batch_size, max_delay, max_queue, lambda size, seconds: seen.append(size))
        try:
            return await scene(batcher, model)
        finally:
            model.gate.set()
            await batcher.close(30)

    return asyncio.run(asyncio.wait_for(play(), 60)), model, seen


def value(number):
    return np.array([number], "float32")


async def entered(model):
    """Until the model has a batch."""
    assert await asyncio.to_thread(model.entered.wait, 30)


async def submitted(batcher, *numbers):
    """Tasks that wait for these inputs, in the queue already."""
    tasks = [asyncio.ensure_future(batcher.submit(value(number))) for number in numbers]
    await asyncio.sleep(0)
    return tasks


async def busy(batcher, model):
    """A batch that keeps the model until its gate is opened."""
    model.gate.clear()
    tasks = await submitted(batcher, 0)
    await entered(model)
    return tasks


def test_everyone_gets_their_own_row_and_batches_are_bounded():
    async def scene(batcher, model):
        return await asyncio.gather(*(batcher.submit(value(i)) for i in range(11)))

    rows, model, seen = played(scene)
    assert [row.tolist() for row in rows] == [[2.0 * i] for i in range(11)]
    assert model.batches == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10]]
    assert seen == [4, 4, 3]


def test_a_full_batch_does_not_wait():
    """With a delay far beyond the test's own limit."""

    async def scene(batcher, model):
        return await asyncio.gather(*(batcher.submit(value(i)) for i in range(4)))

    _, model, _ = played(scene, max_delay=1e6)
    assert model.batches == [[0, 1, 2, 3]]


def test_a_lone_input_waits_no_longer_than_the_delay():
    async def scene(batcher, model):
        return await batcher.submit(value(3))

    row, model, _ = played(scene, max_delay=0.02)
    assert row.tolist() == [6]
    assert model.batches == [[3]]


def test_what_comes_within_the_delay_shares_a_batch():
    async def scene(batcher, model):
        first = await submitted(batcher, 1)
        await asyncio.sleep(0.01)
        return await asyncio.gather(*first, *await submitted(batcher, 2, 3))

    _, model, _ = played(scene, max_delay=1e6, max_batch_size=3)
    assert model.batches == [[1, 2, 3]]


def test_batches_fill_while_the_model_is_busy():
    async def scene(batcher, model):
        first = await busy(batcher, model)
        others = await submitted(batcher, 1, 2, 3)
        assert batcher.waiting == 3
        model.gate.set()
        await asyncio.gather(*first, *others)

    _, model, _ = played(scene)
    assert model.batches == [[0], [1, 2, 3]]


def test_a_failing_batch_fails_its_own_inputs_only():
    async def scene(batcher, model):
        first = await busy(batcher, model)
        bad = await submitted(batcher, -1, 2, 3, 4)
        good = await submitted(batcher, 5)
        model.gate.set()
        return await asyncio.gather(*first, *bad, *good, return_exceptions=True)

    (first, *bad, good), _, seen = played(scene)
    assert first.tolist() == [0]
    assert good.tolist() == [10]
    for error in bad:
        with pytest.raises(BatchError, match="the model failed on this batch"):
            raise error
        assert str(error.__cause__) == "a negative input"
    assert seen == [1, 1]  # of the batch that failed nothing is known


def test_a_model_that_loses_rows_has_failed():
    async def scene(batcher, model):
        return await asyncio.gather(*await submitted(batcher, 1, 2), return_exceptions=True)

    errors, _, _ = played(scene, model=type("Losing", (Model,), {"__call__": lambda self, values: values[:1]})())
    assert [str(error.__cause__) for error in errors] == ["the model returned 1 row for 2 inputs"] * 2


def test_who_is_cancelled_leaves_the_queue():
    async def scene(batcher, model):
        first = await busy(batcher, model)
        one, two, three = await submitted(batcher, 1, 2, 3)
        two.cancel()
        await asyncio.gather(two, return_exceptions=True)
        assert batcher.waiting == 2
        three.cancel()  # at the very moment when the batch is collected
        model.gate.set()
        return await asyncio.gather(*first, one, return_exceptions=True)

    rows, model, _ = played(scene)
    assert [row.tolist() for row in rows] == [[0], [2]]
    assert model.batches == [[0], [1]]


def test_who_is_cancelled_and_has_not_run_since_is_in_no_batch():
    async def scene(batcher, model):
        first = await busy(batcher, model)
        (gone,) = await submitted(batcher, 1)
        next(iter(batcher._waiting)).cancel()
        collecting = batcher._collect()
        collecting.send(None)  # up to where it waits for another input
        assert batcher.waiting == 0
        collecting.close()
        model.gate.set()
        await asyncio.gather(*first, gone, return_exceptions=True)
        return await batcher.submit(value(2))

    row, model, _ = played(scene)
    assert row.tolist() == [4]
    assert model.batches == [[0], [2]]


def test_who_is_cancelled_inside_the_model_harms_nobody():
    async def scene(batcher, model):
        model.gate.clear()
        one, two = await submitted(batcher, 1, 2)
        await entered(model)
        one.cancel()
        model.gate.set()
        return await two, await batcher.submit(value(3))

    rows, _, _ = played(scene)
    assert [row.tolist() for row in rows] == [[4], [6]]


def test_places_are_limited_and_come_back():
    async def scene(batcher, model):
        with batcher.admit(2):
            assert batcher.admitted == 2
            batcher.check(1)
            with pytest.raises(QueueFullError, match="the queue is full: it takes 3"), batcher.admit(2):
                pass
            with batcher.admit(1), pytest.raises(QueueFullError):
                batcher.check(1)
        assert batcher.admitted == 0
        await batcher.submit(value(1))
        assert batcher.expected_wait == 0
        with batcher.admit(3):
            assert batcher.expected_wait > 0

    played(scene, max_queue=3)


def test_closing_cancels_what_waits_and_waits_for_the_model():
    async def scene(batcher, model):
        first = await busy(batcher, model)
        others = await submitted(batcher, 1)
        closing = asyncio.ensure_future(batcher.close(30))
        await asyncio.sleep(0.01)
        assert not closing.done()
        model.gate.set()
        await closing
        assert not batcher.alive
        return await asyncio.gather(*first, *others, return_exceptions=True)

    outcomes, model, _ = played(scene)
    assert [type(outcome) for outcome in outcomes] == [asyncio.CancelledError] * 2
    assert model.batches == [[0]]


def test_a_model_that_does_not_come_back_is_not_waited_for():
    async def scene(batcher, model):
        assert not batcher.busy
        assert batcher.busy_seconds == 0
        waiting = await busy(batcher, model)
        before = batcher.busy_seconds
        await batcher.close(0.05)
        assert batcher.busy
        assert batcher.busy_seconds >= before + 0.05
        return await asyncio.gather(*waiting, return_exceptions=True)

    (answer,), _, _ = played(scene)
    assert isinstance(answer, asyncio.CancelledError)
