"""The backend that Keras will use, and a check of it, before the import of Keras, which takes seconds."""

import json
import os
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from polynet_keras.basics.checks import near_name
from polynet_keras.basics.names import shown

VARIABLE = "KERAS_BACKEND"
BACKENDS = ("tensorflow", "jax", "torch", "numpy", "openvino")
"""Keras's backends, each named like its package."""
SETTINGS = {"floatx": ("float16", "float32", "float64"), "image_data_format": ("channels_last", "channels_first")}
"""The values that Keras accepts, by setting of its file."""


@dataclass(frozen=True)
class Backend:
    """Attributes:
    name: the name as the user wrote it.
    source: the source of the setting: a variable, a file, or "Keras's default".
    """

    name: str
    source: str


def config_file() -> Path:
    """Returns the path of Keras's settings."""
    if "KERAS_HOME" in os.environ:
        return Path(os.environ["KERAS_HOME"], "keras.json").expanduser()
    home = os.path.expanduser("~")
    return Path(home if os.access(home, os.W_OK) else "/tmp", ".keras", "keras.json")


def chosen_backend() -> Backend:
    """Returns the backend that Keras uses when it is imported.

    Raises:
        ValueError: Keras's settings file is damaged.
        OSError: the settings file cannot be read.
    """
    settings = _settings(config_file())
    if os.environ.get(VARIABLE):
        return Backend(os.environ[VARIABLE], VARIABLE)
    if "backend" in settings:
        return Backend(str(settings["backend"]), shown(config_file()))
    return Backend("tensorflow", "Keras's default")


def check_backend() -> None:
    """Raises a `ValueError` unless the backend that Keras uses is known and installed."""
    backend = chosen_backend()
    said = f"{backend.source}={shown(backend.name)}" if backend.source == VARIABLE else backend.source
    if backend.name not in BACKENDS:
        names = f"{said}{'' if backend.source == VARIABLE else f': backend {shown(backend.name)}'}"
        near = near_name(backend.name, BACKENDS)
        raise ValueError(f"{names} must be one of {', '.join(BACKENDS)}, the backends of Keras{near}")
    if find_spec(backend.name) is None:
        raise ValueError(
            f"not installed: {backend.name}, the backend of Keras that {said} asks for: pip install {backend.name}, or "
            f"choose another backend with {VARIABLE}"
        )


def _settings(file: Path) -> dict:
    if not file.exists():
        return {}
    mend = "correct it, or remove it: Keras writes a new one"
    try:
        settings = json.loads(file.read_text())
    except ValueError:
        raise ValueError(f"{shown(file)}, Keras's settings, is not JSON; {mend}") from None
    if not isinstance(settings, dict):
        raise ValueError(f"{shown(file)}, Keras's settings, is not a JSON object; {mend}")
    for name, values in SETTINGS.items():
        if settings.get(name, values[0]) not in values:
            raise ValueError(f"{shown(file)}: {name} must be one of {', '.join(values)}; {mend}")
    if not isinstance(settings.get("epsilon", 1e-7), float):
        raise ValueError(f"{shown(file)}: epsilon must be a number such as 1e-07; {mend}")
    return settings
