"""Checks of arguments: what they take, and what they say of the rest."""

import math

import numpy as np
import pytest

from polynet_keras.basics.checks import check_choice, check_flag, check_integer, check_number, is_integer, is_number


@pytest.mark.parametrize("value", [1, 0.5, 1e-3, np.float32(0.25), np.int64(4)])
def test_numbers(value):
    assert is_number(value)
    check_number("width", value, above=0)
    check_number("width", value, at_least=value, at_most=value)


@pytest.mark.parametrize("value", [0, -0.5, math.nan, math.inf, True, "0.5", None, (1.0,)])
def test_what_is_no_number_above_0(value):
    with pytest.raises(ValueError, match="^width=.* must be a finite number > 0$"):
        check_number("width", value, above=0)


@pytest.mark.parametrize("value", [-0.1, 1, 1.5, math.nan, True, "0.5"])
def test_what_is_no_number_within_bounds(value):
    with pytest.raises(ValueError, match="^rho=.* must be a finite number ≥ 0 and < 1$"):
        check_number("rho", value, at_least=0, below=1)


@pytest.mark.parametrize("value", [1, 2, np.int64(1000)])
def test_integers(value):
    assert is_integer(value)
    check_integer("classes", value, 1)
    check_integer("classes", value, int(value), int(value))


@pytest.mark.parametrize("value", [0, -1, True, 10.0, "10", None])
def test_what_is_no_integer_of_at_least_1(value):
    with pytest.raises(ValueError, match="^classes=.* must be an integer of at least 1$"):
        check_integer("classes", value, 1)


@pytest.mark.parametrize("value", [0, 1001, True, 10.0])
def test_what_is_no_integer_within_bounds(value):
    with pytest.raises(ValueError, match=f"^top={value} must be an integer from 1 to 1000$"):
        check_integer("top", value, 1, 1000)


@pytest.mark.parametrize("value", [0, 1, None, "True"])
def test_what_is_no_flag(value):
    check_flag("flip", True)
    check_flag("flip", False)
    with pytest.raises(ValueError, match="^flip=.* must be True or False$"):
        check_flag("flip", value)


@pytest.mark.parametrize("value", ["c", "", None, 1, ["a"]])
def test_what_is_no_choice(value):
    check_choice("mode", "b", ("a", "b"))
    with pytest.raises(ValueError, match="^mode=.* must be one of a, b$"):
        check_choice("mode", value, ("a", "b"))


def test_an_unknown_choice_is_answered_with_the_nearest():
    with pytest.raises(ValueError, match=r"^optimizer='adam' must be one of sgd, adamw; did you mean adamw\?$"):
        check_choice("optimizer", "adam", ("sgd", "adamw"))
    with pytest.raises(ValueError, match=r"did you mean imagenet-G5\?$"):
        check_choice("recipe", "Imagenet_g5", ("digits", "imagenet-G5"))
    for value in ("x", 5, None):
        with pytest.raises(ValueError, match=r"must be one of sgd, adamw$"):
            check_choice("optimizer", value, ("sgd", "adamw"))
