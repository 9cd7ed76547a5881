"""Learning rates against formulas, at every step of a run."""

import dataclasses
import json
import math

import keras
import numpy as np
import pytest

from polynet_keras.training.making import make_schedule
from polynet_keras.training.recipes.schedule import SCHEDULES_OWN, ScheduleSettings

STEPS, PER_EPOCH = 200, 20


def rates(settings):
    schedule = make_schedule(settings, STEPS, PER_EPOCH)
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(schedule))
    found = [float(schedule(keras.ops.convert_to_tensor(step))) for step in range(STEPS + 1)]
    np.testing.assert_array_equal(found, [float(again(keras.ops.convert_to_tensor(s))) for s in range(STEPS + 1)])
    return found


def warmed_up(step, steps=20):
    return min(1.0, step / steps) if steps else 1.0


def test_cosine():
    expected = [
        0.4 * (step / 20 if step < 20 else (1 + math.cos(math.pi * (step - 20) / 180)) / 2) for step in range(STEPS + 1)
    ]
    np.testing.assert_allclose(rates(ScheduleSettings("cosine", 0.4)), expected, rtol=1e-5, atol=1e-7)


def test_step_falls_at_once_and_exponential_smoothly():
    for name, exponent in (("step", math.floor), ("exponential", float)):
        settings = ScheduleSettings(name, 0.4, decay_epochs=2.5, decay_factor=0.1)
        expected = [0.4 * 0.1 ** exponent(step / 50) * warmed_up(step) for step in range(STEPS + 1)]
        np.testing.assert_allclose(rates(settings), expected, rtol=1e-5)


@pytest.mark.parametrize("share", [0.0, 0.1])
def test_constant(share):
    expected = [0.4 * warmed_up(step, share * STEPS) for step in range(STEPS + 1)]
    np.testing.assert_allclose(rates(ScheduleSettings("constant", 0.4, warmup_share=share)), expected, rtol=1e-6)


def test_the_defaults_are_a_cosine_of_two_thousandths():
    expected = [
        0.002 * (step / 20 if step < 20 else (1 + math.cos(math.pi * (step - 20) / 180)) / 2)
        for step in range(STEPS + 1)
    ]
    np.testing.assert_allclose(rates(ScheduleSettings()), expected, rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize("name", ["cosine", "constant"])
def test_a_run_can_be_all_warm_up(name):
    expected = [0.4 * step / STEPS for step in range(STEPS + 1)]
    np.testing.assert_allclose(rates(ScheduleSettings(name, 0.4, warmup_share=1)), expected, rtol=1e-6)


def test_the_last_step_of_a_cosine_after_a_long_warm_up():
    schedule = make_schedule(ScheduleSettings("cosine", 0.4, warmup_share=0.9), 10, 10)
    found = [float(schedule(keras.ops.convert_to_tensor(step))) for step in (8, 9, 10)]
    np.testing.assert_allclose(found, [0.4 * 8 / 9, 0.4, 0.0], rtol=1e-6, atol=1e-8)


def test_cosine_without_a_warm_up():
    expected = [0.4 * (1 + math.cos(math.pi * step / STEPS)) / 2 for step in range(STEPS + 1)]
    np.testing.assert_allclose(rates(ScheduleSettings("cosine", 0.4, warmup_share=0)), expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(
    ("share", "steps", "warmup"), [(0.1, 206, 21), (0.1, 204, 20), (0.004, 100, 0), (0.006, 100, 1), (1.0, 7, 7)]
)
@pytest.mark.parametrize("name", ["cosine", "constant", "exponential"])
def test_the_warm_up_is_of_whole_steps(name, share, steps, warmup):
    """It rises to the highest rate, or where that has fallen to, with the last of its steps."""
    decays = {"decay_epochs": 1, "decay_factor": 0.5} if name == "exponential" else {}
    schedule = make_schedule(ScheduleSettings(name, 0.4, share, **decays), steps, 1000)
    fallen = 0.5 ** (np.arange(warmup + 1) / 1000) if name == "exponential" else np.ones(warmup + 1)
    found = [float(schedule(keras.ops.convert_to_tensor(step))) for step in range(warmup + 1)]
    np.testing.assert_allclose(found, 0.4 * fallen * np.arange(warmup + 1) / warmup if warmup else [0.4], rtol=1e-5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("linear",), "schedule='linear' must be one of cosine, step, exponential, constant"),
        (("cosine", 0.0), "learning_rate=0.0 must be a finite number > 0"),
        (("cosine", math.inf), "learning_rate=inf must be a finite number > 0"),
        (("cosine", 0.1, -0.1), "warmup_share=-0.1 must be a finite number ≥ 0 and ≤ 1"),
        (("cosine", 0.1, 1.1), "warmup_share=1.1 must be a finite number ≥ 0 and ≤ 1"),
        (("step", 0.1, 0, None, 0.5), "needs decay_epochs and decay_factor; decay_epochs is missing"),
        (("exponential", 0.1, 0, 2), "needs decay_epochs and decay_factor; decay_factor is missing"),
        (("cosine", 0.1, 0, 2), "decay_epochs=2.* is a setting of step and exponential, not of 'cosine'"),
        (("constant", 0.1, 0, None, 0.5), "decay_factor=0.5 is a setting of step and exponential, not of 'constant'"),
        (("step", 0.1, 0, 0, 0.5), "decay_epochs=0.* must be a finite number > 0"),
        (("step", 0.1, 0, 2, 0), "decay_factor=0.* must be a finite number > 0 and ≤ 1"),
        (("step", 0.1, 0, 2, 1.5), "decay_factor=1.5 must be a finite number > 0 and ≤ 1"),
    ],
)
def test_schedules_that_there_are_not(arguments, message):
    with pytest.raises(ValueError, match=message):
        ScheduleSettings(*arguments)


def test_the_bounds_belong_to_the_ranges():
    for share in (0, 1):
        assert ScheduleSettings("cosine", 1e-9, share).warmup_share == share
    assert ScheduleSettings("step", 0.1, 0, 1e-9, 1).decay_factor == 1
    assert ScheduleSettings("step", 0.1, 0, 100, 0.1).decay_epochs == 100


def test_settings_are_values_of_plain_numbers():
    settings = ScheduleSettings("step", np.float64(0.5), np.float64(0.25), np.float64(2), np.float64(0.5))
    assert {type(value) for value in dataclasses.astuple(settings)} == {str, float}
    with pytest.raises(dataclasses.FrozenInstanceError):
        settings.learning_rate = 1.0
    assert set(SCHEDULES_OWN) == {field.name for field in dataclasses.fields(settings) if field.default is None}


@pytest.mark.parametrize("share", [0.0, 0.5])
@pytest.mark.parametrize("name", ["constant", "step"])
def test_a_warm_up_is_saved_with_a_model(name, share):
    decays = {"decay_epochs": 1, "decay_factor": 0.5} if name == "step" else {}
    schedule = make_schedule(ScheduleSettings(name, 0.4, share, **decays), 10, 10)
    assert keras.saving.get_registered_name(type(schedule)) == "polynet_keras>Warmup"
    config = json.loads(json.dumps(schedule.get_config()))
    step = keras.ops.convert_to_tensor(3)
    assert float(type(schedule).from_config(config)(step)) == float(schedule(step))
    assert type(schedule(step)) is type(step)  # a tensor
    assert keras.backend.standardize_dtype(schedule(step).dtype) == "float32"
