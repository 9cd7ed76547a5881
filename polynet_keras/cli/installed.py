"""Finds installed packages without importing them, and the extras that a command may need."""

import os
import platform
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

from polynet_keras.basics.extras import missing_packages
from polynet_keras.basics.names import number_of
from polynet_keras.cli.backend import BACKENDS, chosen_backend
from polynet_keras.version import __version__

EXTRAS = {
    "train": ("data",),
    "launch": ("data",),
    "ablation": ("data",),
    "predict": ("data", "tables"),
    "evaluate": ("data",),
    "explain": ("data",),
    "features": ("data",),
    "results": ("data",),
    "ensemble": ("data",),
    "export": ("data", "deploy"),
    "serve": ("data", "deploy", "serve"),
    "records": ("data",),
    "benchmark": ("data",),
    "crops": ("data",),
    "convert": ("data",),
}
"""The extras that each command may need."""

PACKAGES = ("keras", "tensorflow", "jax", "torch")
"""Keras and its backends."""


def missing_extras(command: str) -> list[str]:
    """Returns the extras that a command may need and that are missing or incomplete."""
    return [extra for extra in EXTRAS.get(command, ()) if missing_packages(extra)]


def version_of(package: str) -> str | None:
    """Returns a package's version, or `None` if it is not installed."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:  # for example tensorflow, installed as tensorflow-cpu
        return "of unknown version" if find_spec(package) else None


def versions() -> list[tuple[str, str]]:
    """Returns the names and versions of this package and of those that it works with."""
    found = [(package, version_of(package) or "not installed") for package in PACKAGES]
    try:
        backend = chosen_backend()
        unknown = "" if backend.name in BACKENDS else ", which is none of Keras's backends"
        said = f"{backend.name} ({backend.source}{unknown})"
    except (ValueError, OSError) as error:
        said = f"unknown: {error}"
    return [("polynet_keras", __version__), ("python", platform.python_version()), *found, ("backend", said)]


def devices() -> str:
    """Returns this machine's processors, from the system's files and without a framework."""
    cards = len(list(Path("/dev").glob("nvidia[0-9]*")))
    return (
        f"{number_of(os.cpu_count() or 1, 'CPU core')}, {number_of(cards, 'NVIDIA GPU') if cards else 'no NVIDIA GPU'}"
    )
