"""The identity of a result: the hash of its model's weights, versions, devices."""

import hashlib
import importlib
import os
import platform
from datetime import UTC, datetime
from pathlib import Path

import keras
import numpy as np

from polynet_keras.basics.names import number_of
from polynet_keras.version import __version__


def weights_hash(model: keras.Model) -> str:
    """Returns the SHA-256 of a model's weights, hexadecimal: the same for any file format, backend and layer names.

    It covers each weight's dtype, shape and little-endian values, in the order of `model.weights`.
    """
    digest = hashlib.sha256()
    for weight in model.weights:
        value = keras.ops.convert_to_numpy(weight)
        digest.update(f"{value.dtype.name} {value.shape}\n".encode())
        digest.update(value.tobytes())
    return digest.hexdigest()


def environment() -> dict[str, str]:
    """Returns the fields `date` and from `python` to `device` of a `Result` that ends now on this machine."""
    backend = keras.backend.backend()
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "keras": keras.__version__,
        "backend": f"{backend} {importlib.import_module(backend).__version__}",
        "numpy": np.__version__,
        "polynet_keras": __version__,
        "device": "; ".join([_processor(), *_accelerators(backend)]),
    }


def _processor(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    name = platform.processor() or platform.machine()
    if cpuinfo.exists():
        lines = (line.partition(":") for line in cpuinfo.read_text().splitlines())
        # The entry exists on x86, but not on every ARM.
        name = next((value.strip() for key, _, value in lines if key.strip() == "model name"), name)
    return f"{name}, {number_of(os.cpu_count() or 1, 'core')}"


def _accelerators(backend: str) -> list[str]:
    if backend == "torch":  # has no keras.distribution
        import torch

        return [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return [device for device in keras.distribution.list_devices() if not device.startswith("cpu")]
