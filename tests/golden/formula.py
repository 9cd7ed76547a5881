"""Weights from a formula: a number for each key of a state dict and each index in it, without a random generator.

The i-th value (in the order of PyTorch's layout) of the array called `key` is, from a hash of both,

    x = i · 2654435761 + crc32(key)    (mod 2³²)
    twice: x = (x xor x >> 16) · 73244475    (mod 2³²)
    u = (x xor x >> 16) / 2³²    in [0, 1)

brought to a range that depends on what the array is, see `_range`.
"""

import zlib

import numpy as np

TRUNK = (384, 1152, 2048)


def formula(key: str, shape: tuple[int, ...]) -> np.ndarray:
    """The float32 array of that key and shape, in PyTorch's layout."""
    x = np.arange(np.prod(shape), dtype="uint32") * np.uint32(2654435761) + np.uint32(zlib.crc32(key.encode()))
    for _ in range(2):
        x = (x ^ (x >> np.uint32(16))) * np.uint32(73244475)
    u = (x ^ (x >> np.uint32(16))) / 2**32
    low, high = _range(key, shape)
    return (low + (high - low) * u).astype("float32").reshape(shape)


def _range(key: str, shape: tuple[int, ...]) -> tuple[float, float]:
    kind = key.rpartition(".")[2]
    if len(shape) > 1:  # kernels: variance 1 / fan in
        bound = (3 / np.prod(shape[1:])) ** 0.5
        return -bound, bound
    if kind == "weight":  # gamma; small on the residual paths, so that the sum of forty modules stays in range
        return (0.02, 0.1) if shape[0] in TRUNK else (0.5, 1.5)
    if kind == "running_var":
        return 0.1, 0.4
    return -0.2, 0.2
