"""How far a run is: rates and remaining time of a clock that the test sets."""

import itertools
import math

import keras
import pytest

from polynet_keras.training.runs import progress
from polynet_keras.training.runs.progress import ProgressDisplay


@pytest.fixture
def clock(monkeypatch):
    class Clock:
        now = 0.0

        def monotonic(self):
            return self.now

    clock = Clock()
    monkeypatch.setattr(progress, "time", clock)
    return clock


@pytest.fixture
def lines(monkeypatch):
    lines = []
    monkeypatch.setattr(progress, "tell", lambda text, *values: lines.append(text % values))
    return lines


def run(clock, callback, epochs, steps, seconds, first_epoch=0, validation=0.0):
    validations = itertools.repeat(validation) if isinstance(validation, float) else validation
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    model.compile(keras.optimizers.SGD(0.25))
    callback.set_model(model)
    callback.set_params({"epochs": epochs})
    logs = []
    for epoch in range(first_epoch, epochs):
        callback.on_epoch_begin(epoch)
        for step in range(steps):
            clock.now += next(seconds)
            callback.on_train_batch_end(step, {"loss": 1.5})
        clock.now += next(validations)
        callback.on_test_begin()
        logs.append({"loss": 1.5})
        callback.on_epoch_end(epoch, logs[-1])
    return logs


def test_rates_leave_out_the_first_step_and_validation(clock, lines):
    """10 images in batches of 4: the last one holds 2. The first step is traced in 100 s, each other takes 2 s."""
    callback = ProgressDisplay(images=10, batch_size=4)
    logs = run(clock, callback, 2, 3, itertools.chain([100.0], itertools.repeat(2.0)), validation=10.0)
    assert [one["images_per_second"] for one in logs] == [pytest.approx(6 / 4), pytest.approx(10 / 6)]
    assert {one["learning_rate"] for one in logs} == {0.25}
    # 10 more images take 0.5 s each: the slower one of two steps does not count.
    assert lines == [
        "epoch 1/2: 4 of 10 images, loss 1.5000",  # a minute is over
        "epoch 1/2: loss 1.5000; 1.5 images/s; about 5 s left",
        "epoch 2/2: loss 1.5000; 1.667 images/s",
    ]


def test_what_is_compiled_once_does_not_count_for_the_epochs_that_are_left(clock, lines):
    """Of each epoch the last batch is smaller: on JAX its first step and validation compile for 30 s."""
    seconds = itertools.chain([100.0, 2.0, 31.0], itertools.cycle([2.0, 2.0, 1.0]))
    run(
        clock,
        ProgressDisplay(images=10, batch_size=4),
        4,
        3,
        seconds,
        validation=itertools.chain([50.0], itertools.repeat(4.0)),
    )
    assert [line.partition("about ")[2] for line in lines if "images/s" in line] == [
        "15 s left",  # without validation, which has compiled, too
        "18 s left",
        "9 s left",
        "",
    ]


def test_of_a_run_of_one_step_no_rate_is_said(clock, lines):
    """The step was traced: nothing is known of the next ones."""
    (logs,) = run(clock, ProgressDisplay(images=4, batch_size=4), 1, 1, iter([5.0]))
    assert math.isnan(logs["images_per_second"])
    assert lines == ["epoch 1/1: loss 1.5000"]


def test_a_run_that_goes_on_counts_its_own_steps(clock, lines):
    """From the third of four steps of the second epoch on: the two before are not computed."""
    callback = ProgressDisplay(images=8, batch_size=2, first_step=2)
    logs = run(clock, callback, 3, 4, itertools.chain([0.0, 0.0, 50.0], itertools.repeat(1.0)), first_epoch=1)
    assert [one["images_per_second"] for one in logs] == [2.0, 2.0]
    assert lines[0] == "epoch 2/3: loss 1.5000; 2 images/s; about 4 s left"


def test_a_line_a_minute_within_an_epoch(clock, lines):
    callback = ProgressDisplay(images=400, batch_size=4)
    run(clock, callback, 1, 100, itertools.repeat(2.0))
    assert [line.partition(",")[0] for line in lines[:-1]] == [
        f"epoch 1/1: {done} of 400 images" for done in (120, 240, 360)
    ]
    assert lines[0].endswith("loss 1.5000; about 2 min 20 s left")


@pytest.mark.parametrize(
    ("seconds", "text"), [(7.4, "7 s"), (61, "1 min 1 s"), (3661, "1 h 1 min"), (90000, "25 h 0 min")]
)
def test_durations(seconds, text):
    assert progress.duration(seconds) == text
