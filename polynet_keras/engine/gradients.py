"""The gradient of a function of a tensor, on every backend."""

import contextlib
from collections.abc import Callable
from typing import Any

import keras


def gradient(function: Callable[[Any], tuple[Any, Any]], x: Any) -> tuple[Any, Any]:
    """Computes the gradient of a function, and returns the function's other results with it.

    Args:
        function: maps a tensor to a scalar tensor that depends on it, and to other results, as tensors; called once.
        x: a floating-point tensor.

    Returns:
        The other results, and d function(x) / dx, with the shape and dtype of `x`.

    Raises:
        ValueError: Keras's backend computes no gradients.
    """
    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(x)
            y, besides = function(x)
        return besides, tape.gradient(y, x)
    if backend == "jax":
        import jax

        found, besides = jax.grad(function, has_aux=True)(x)
        return besides, found
    if backend != "torch":
        raise ValueError(f"Keras's backend {backend} computes no gradients; use tensorflow, jax or torch")
    import torch

    x = x.detach().requires_grad_()
    with torch.enable_grad():
        y, besides = function(x)
        (found,) = torch.autograd.grad(y, x)
    return besides, found


def without_gradients() -> contextlib.AbstractContextManager:
    """A context in which nothing is kept for gradients; only PyTorch would keep values."""
    if keras.backend.backend() != "torch":
        return contextlib.nullcontext()
    import torch

    return torch.no_grad()
