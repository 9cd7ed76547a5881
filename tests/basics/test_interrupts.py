"""Ctrl-C, where it comes while C code calls Python."""

import keras
import pytest

from polynet_keras.basics.interrupts import interrupts_kept, is_interrupt


class Interrupted(keras.layers.Layer):
    def call(self, inputs):
        raise SystemError("<built-in function f> returned a result with an exception set") from KeyboardInterrupt()


def test_an_interrupt_that_comes_out_of_keras_is_one():
    with pytest.raises(KeyboardInterrupt), interrupts_kept():
        Interrupted()(keras.ops.ones(1))
    with pytest.raises(SystemError) as error:
        Interrupted()(keras.ops.ones(1))
    assert error.value.__cause__ is None  # Keras raised it anew
    assert is_interrupt(error.value)


def test_another_error_stays_as_it_is():
    error = SystemError("of another kind")
    with pytest.raises(SystemError, match="of another kind"), interrupts_kept():
        raise error
    assert not is_interrupt(error)
    assert not is_interrupt(ValueError("no"))
