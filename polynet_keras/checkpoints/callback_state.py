"""The state that callbacks keep from epoch to epoch, as values that can be saved."""

from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np

from polynet_keras.basics.keras_internals import CALLBACK_STATE, remembered

ATTRIBUTES = tuple((getattr(keras.callbacks, kind), names) for kind, names in CALLBACK_STATE.items())
"""The state of Keras's callbacks. Other callbacks give theirs with `get_state()` and take it with `set_state(state)`: a
dictionary of arrays and of values that JSON can hold."""

TENSOR = "tensor:"


def get_states(callbacks: Sequence[keras.callbacks.Callback]) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Returns the state of callbacks.

    Returns:
        Values for JSON, by class and number within the class, and the arrays that they name.
    """
    arrays: dict[str, np.ndarray] = {}

    def packed(value, name: str):
        if hasattr(value, "__array__"):  # NumPy's, and those of Keras's backends
            array = np.asarray(value)
            if not array.ndim:
                return array.item()
            arrays[name] = array
            return TENSOR + name
        if isinstance(value, dict):
            return {key: packed(one, f"{name}/{key}") for key, one in value.items()}
        if isinstance(value, (list, tuple)):
            return [packed(one, f"{name}/{number}") for number, one in enumerate(value)]
        return value

    states = {}
    for key, callback in _by_key(callbacks).items():
        if callable(getattr(callback, "get_state", None)):
            state = callback.get_state()
        else:
            state = remembered(callback, _attributes(callback))
        if state:
            states[key] = packed(state, f"callbacks/{key}")
    return states, arrays


def set_states(
    callbacks: Sequence[keras.callbacks.Callback], states: dict[str, Any], tensor: Callable[[str], np.ndarray]
) -> list[str]:
    """Sets the state of callbacks to the result of `get_states`; `tensor` returns the arrays by name.

    Returns:
        The states that belong to none of these callbacks, by class and number within the class.
    """

    def unpacked(value):
        if isinstance(value, str) and value.startswith(TENSOR):
            return tensor(value.removeprefix(TENSOR))
        if isinstance(value, dict):
            return {key: unpacked(one) for key, one in value.items()}
        return [unpacked(one) for one in value] if isinstance(value, list) else value

    present, missing = _by_key(callbacks), []
    for key, state in states.items():
        callback = present.get(key)
        if callback is None:
            missing.append(key)
        elif callable(getattr(callback, "set_state", None)):
            callback.set_state(unpacked(state))
        else:
            for name in _attributes(callback):
                if name in state:
                    setattr(callback, name, unpacked(state[name]))
    return missing


def _attributes(callback: keras.callbacks.Callback) -> tuple[str, ...]:
    return next((names for kind, names in ATTRIBUTES if isinstance(callback, kind)), ())


def _by_key(callbacks: Sequence[keras.callbacks.Callback]) -> dict[str, keras.callbacks.Callback]:
    keyed: dict[str, keras.callbacks.Callback] = {}
    counts: dict[str, int] = {}
    for callback in callbacks:
        name = type(callback).__name__
        counts[name] = counts.get(name, 0) + 1
        keyed[f"{name}-{counts[name]}"] = callback
    return keyed
