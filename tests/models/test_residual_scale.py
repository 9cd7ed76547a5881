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
    assert scales_and_survival((1.0, 0.4), 4)[0] == pytest.approx((1.0, 0.8, 0.6, 0.4))
    assert scales_and_survival([0.1, 0.2, 0.3, 0.4], 4)[0] == (0.1, 0.2, 0.3, 0.4)


@pytest.mark.parametrize("scale", [-0.1, float("nan"), float("inf"), "0.3", True, (0.1, 0.2, 0.3), (), (0.1, None)])
def test_anything_else_is_refused(scale):
    with pytest.raises(ValueError, match="residual_scale="):
        scales_and_survival(scale, 4)
