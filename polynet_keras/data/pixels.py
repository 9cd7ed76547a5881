"""Images as arrays, on any backend: resizing, normalization, and warnings of impossible values."""

import warnings
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from polynet_keras.basics.names import size_text


def resized(image: np.ndarray, size: tuple[int, int], interpolation: str, antialias: bool) -> np.ndarray:
    """Resizes an image; its values stay in 0 to 255.

    Args:
        image: uint8 or float32 array (height, width, channels).
        size: height and width, in pixels.
        interpolation: `"bilinear"` or `"bicubic"`.
        antialias: whether to filter a shrinking image before sampling.

    Returns:
        float32 array (*size, channels).
    """
    found = ops.image.resize(
        image.astype("float32"), size, interpolation=interpolation, antialias=antialias, data_format="channels_last"
    )
    # Bicubic weights go below zero: without the bound, values would go beyond those that an image has.
    return np.clip(ops.convert_to_numpy(found), 0, 255)


def normalize(x: Any, mean: Sequence[float], std: Sequence[float], data_format: str | None = None) -> Any:
    """Returns `(x / 255 - mean) / std` for each channel, never in place.

    Args:
        x: array or tensor of values 0 to 255, 3-D or 4-D.
        mean, std: one value per channel.
        data_format: `"channels_last"`, `"channels_first"`, or `None` for `keras.config.image_data_format()`.

    Returns:
        A NumPy array for a NumPy array, else a backend tensor; integers become `keras.config.floatx()`.

    Raises:
        ValueError: the number of dimensions or channels is wrong, or the data format is unknown.
    """
    data_format = data_format or keras.config.image_data_format()
    if data_format not in ("channels_last", "channels_first"):
        raise ValueError(f"data_format={data_format!r} must be 'channels_last' or 'channels_first'")
    is_numpy = isinstance(x, np.ndarray)
    if not is_numpy:
        x = ops.convert_to_tensor(x)
    axis = -1 if data_format == "channels_last" else -3
    # In tf.data, `decode_jpeg(channels=0)` gives a tensor of unknown channels, `decode_image` one of unknown rank.
    known = getattr(x.shape, "rank", 0) is not None
    if known and (len(x.shape) not in (3, 4) or x.shape[axis] not in (None, len(mean))):
        raise ValueError(
            f"expected images of {len(mean)} channels, 3-D or 4-D, {data_format}; got {size_text(x.shape)}"
        )
    if "float" not in keras.backend.standardize_dtype(x.dtype):
        x = x.astype(keras.config.floatx()) if is_numpy else ops.cast(x, keras.config.floatx())
    channel = (-1,) if data_format == "channels_last" else (-1, 1, 1)
    # One multiplication and one addition: x·scale + offset. The constants take x's dtype, so float16 stays float16.
    scale = np.reshape([1.0 / (255.0 * s) for s in std], channel)
    offset = np.reshape([-m / s for m, s in zip(mean, std, strict=True)], channel)
    if is_numpy:
        return x * scale.astype(x.dtype) + offset.astype(x.dtype)
    return x * ops.convert_to_tensor(scale, x.dtype) + ops.convert_to_tensor(offset, x.dtype)


OVERSHOOT = 64
"""Tolerance outside 0 to 255: a bicubic or Lanczos resize overshoots."""
NORMALIZED = 20
"""Largest value of an image after subtraction of its mean and division by its deviation."""


def warn_of_impossible_range(x: Any) -> None:
    """Warns of images whose values cannot be 0 to 255: already scaled to [0, 1] or normalized, or far outside.

    Python shows the same warning once for each calling line. Symbolic tensors have no values and pass.
    """
    values = _values(x)
    if values is None or not values.size:
        return
    low, high = values.min(), values.max()
    if not (low >= -OVERSHOOT and high <= 255 + OVERSHOOT):
        found = "values far outside of that range, or not finite"
    elif low < 0 and high <= NORMALIZED:
        found = "values below 0 and none that is large: they look normalized already"
    elif 0 < high <= 1 and (values % 1).any():
        found = "no value above 1: they look scaled to [0, 1] already"
    else:
        return
    warnings.warn(
        f"preprocess_input takes images of values 0 to 255; it got {found}. The network will not know them.",
        stacklevel=3,
    )


def _values(x: Any) -> np.ndarray | None:
    if isinstance(x, np.ndarray):
        return x
    try:
        return ops.convert_to_numpy(x)
    except Exception:  # inside a function that is traced, each backend has an error of its own
        return None
