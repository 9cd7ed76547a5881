"""Formats that need more than the versions that `setup.py` admits: reported in one line before any work is done."""

import importlib
import importlib.metadata
import platform
import re
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Requirement:
    """A version of Keras that a format needs.

    Attributes:
        keras: the lowest version that will do.
        python: it is needed from this version of Python on.
        older: it is needed only if each of these packages is older than this.
    """

    keras: str
    python: str = "0"
    older: Mapping[str, str] | None = None

    def applies(self, installed: Mapping[str, str]) -> bool:
        if _number(installed["python"]) < _number(self.python):
            return False
        return all(_number(installed[package]) < _number(version) for package, version in (self.older or {}).items())


# With Keras 3.14 an export asks whether a dictionary that TensorFlow has wrapped in a `wrapt.ObjectProxy` is a tensor.
# From Python 3.12 on, that fails: "this __dict__ descriptor does not support '_DictWrapper' objects".
_BY_TENSORFLOW = Requirement("3.15", python="3.12", older={"tensorflow": "2.21", "wrapt": "2.2"})

REQUIREMENTS = {
    "saved_model": _BY_TENSORFLOW,
    "onnx": _BY_TENSORFLOW,
    "openvino": _BY_TENSORFLOW,
    "litert": _BY_TENSORFLOW,
    "torch": Requirement("3.15"),  # the first that writes it
}
"""By format."""


def check_versions(format: str, installed: Mapping[str, str] | None = None) -> None:
    """Raises a `ValueError` that says what to install if a format needs another Keras than this one.

    Args:
        format: a key of `artifact.ARTIFACTS`.
        installed: the versions of `"python"`, `"keras"`, `"tensorflow"` and `"wrapt"`; by default the installed ones.
    """
    requirement = REQUIREMENTS[format]
    named = ("keras", *(requirement.older or {}))
    if installed is None:
        installed = {"python": platform.python_version(), **{name: version(name) for name in named}}
    if _number(installed["keras"]) >= _number(requirement.keras) or not requirement.applies(installed):
        return
    found = ", ".join(f"{name} {installed[name]}" for name in named)
    raise ValueError(
        f"{format} needs keras {requirement.keras} or later with {found} on Python {installed['python']}: "
        f"pip install 'keras=={requirement.keras}.*'"
    )


def version(module: str) -> str:
    """Of the package that has the module."""
    try:
        return importlib.metadata.version(module.replace("_", "-"))
    except importlib.metadata.PackageNotFoundError:  # installed under another name: onnxruntime-gpu, tensorflow-cpu
        return getattr(importlib.import_module(module), "__version__", "unknown")


def _number(version: str) -> tuple[int, ...]:
    """Major and minor."""
    return tuple(int(part) for part in re.findall(r"\d+", version)[:2])
