import numpy as np
import pytest

from polynet_keras.models.residual_scale import scales_and_survival


def test_none_is_the_schedule_of_the_released_net():
    scales, survival = scales_and_survival(None, 40)
    assert scales == (1.0,) * 40
    # The constants that stand in the published port, rounded to six digits there.
    for module, published in {0: 1.0, 1: 0.992308, 10: 0.923077, 11: 0.915385, 29: 0.776923, 39: 0.7}.items():
        assert survival[module] == pytest.approx(published, abs=5e-7)


def test_number_pair_and_sequence():
    assert scales_and_survival(0.3, 4) == ((0.3,) * 4, (1.0,) * 4)
    assert scales_and_survival(0, 2) == ((0.0,) * 2, (1.0,) * 2)
    assert scales_and_survival((1.0, 0.4), 4)[0] == pytest.approx((1.0, 0.8, 0.6, 0.4))
    assert scales_and_survival((0.5, 1.0), 3) == ((0.5, 0.75, 1.0), (1.0,) * 3)
    assert scales_and_survival([0.1, 0.2, 0.3, 0.4], 4) == ((0.1, 0.2, 0.3, 0.4), (1.0,) * 4)


def test_the_fewest_modules():
    assert scales_and_survival(None, 1) == ((1.0,), (1.0,))
    assert scales_and_survival(None, 2) == ((1.0, 1.0), (1.0, 0.7))
    assert scales_and_survival((0.2, 0.6), 2) == ((0.2, 0.6), (1.0, 1.0))
    assert scales_and_survival([0.2], 1) == ((0.2,), (1.0,))
    assert scales_and_survival((0.2, 0.6), 1) == ((0.2,), (1.0,))


@pytest.mark.parametrize("scale", [np.float32(0.5), (np.float32(1.0), np.float32(0.5)), [1, 0, np.float32(0.5)]])
def test_values_are_plain_floats(scale):
    """A layer's config holds them, and a saved model is JSON."""
    assert {type(value) for values in scales_and_survival(scale, 3) for value in values} == {float}


@pytest.mark.parametrize(
    "scale",
    [-0.1, float("nan"), float("inf"), "0.3", "0.30", True, (0.1, None), (0.1, 0.2, 0.3, -0.1), (0.1, True)],
)
def test_what_is_no_number_is_refused(scale):
    with pytest.raises(ValueError, match="residual_scale=.* must be a number ≥ 0"):
        scales_and_survival(scale, 4)


@pytest.mark.parametrize("count", [0, 1, 3, 5])
def test_as_many_values_as_there_are_not_modules_are_refused(count):
    with pytest.raises(ValueError, match=rf"residual_scale=.* has {count} values?; .* one for each of the 4 modules"):
        scales_and_survival((0.1,) * count, 4)
