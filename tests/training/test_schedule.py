"""Learning rates against formulas, at every step of a run."""

import math

import keras
import numpy as np
import pytest

from polynet_keras.training.schedule import ScheduleSettings

STEPS, PER_EPOCH = 200, 20


def rates(settings):
    schedule = settings.make(STEPS, PER_EPOCH)
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
