"""The gradient of a function of a tensor, on each backend in its own way."""

import contextlib
from collections.abc import Callable
from typing import Any

import keras


def gradient(function: Callable[[Any], tuple[Any, Any]], x: Any) -> tuple[Any, Any]:
    """What a function gives besides, and its gradient.

    Args:
        function: from a tensor to a scalar tensor, which depends on it, and anything besides, as tensors; called once.
        x: a floating-point tensor.

    Returns:
        What the function gives besides, and d function(x) / dx, of the shape and dtype of `x`.

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
    """Where nothing is kept for a gradient; PyTorch alone would keep it."""
    if keras.backend.backend() != "torch":
        return contextlib.nullcontext()
    import torch

    return torch.no_grad()
