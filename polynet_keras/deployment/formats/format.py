"""A format: everything that export, card and loading know about it. No other code depends on its name.

Cards are read, and names refused, without Keras: writers and loaders import their packages themselves.
"""

import importlib
import importlib.metadata
import platform
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import keras
    import numpy as np

    from polynet_keras.deployment.calibration import Calibration
    from polynet_keras.evaluation.loading import TrainedModel

Runner = Callable[["np.ndarray"], "np.ndarray"]
"""From preprocessed images, float32 (batch, height, width, channels), to probabilities, float32 (batch, classes)."""

# With Keras 3.14 an export asks whether a dictionary that TensorFlow has wrapped in a `wrapt.ObjectProxy` is a tensor.
# From Python 3.12 on, that fails: "this __dict__ descriptor does not support '_DictWrapper' objects".
FAILS_FROM_PYTHON = "3.12"
FAILS_BEFORE = {"keras": "3.15", "tensorflow": "2.21", "wrapt": "2.2"}
"""Versions for the formats that TensorFlow writes."""


@dataclass(frozen=True)
class Format:
    """A format of exported models.

    Attributes:
        name: name in `--format` and on cards.
        file: the file that loads an artifact.
        precisions: the precisions that it can be written in, the default first, each with the packages of the extra
            `deploy` that write and run it. `"dynamic"` are weights in int8, activations in float; `"int8"` needs a
            calibration.
        write: takes the file to write, whose folder exists, the fused network, its original model, the precision, and
            the calibration of int8; returns the names of the layers that went back to float for its `max_drop`, if any
            did.
        load: takes the file and the most threads per inference, or None to let the runtime decide. Any number of
            threads may call the runner at once.
        check: compares the artifact's other signatures with the original model, or raises a `ValueError`.
        runtime: the packages of the extra `deploy` that load it.
        backend: the Keras backend that writes it.
        fails_before: Keras does not write the format if all of these packages are older than these versions, on Python
            `fails_from_python` or later.
        fails_from_python: the first version of Python on which `fails_before` applies.
        alias: another name for `--format`; no card has it.
        gives_back: whether int8 can give layers back to float for a `max_drop`.
    """

    name: str
    file: str
    precisions: Mapping[str, tuple[str, ...]]
    write: "Callable[[Path, keras.Model, TrainedModel, str, Calibration | None], Sequence[str] | None]"
    load: Callable[[Path, int | None], Runner]
    check: "Callable[[Path, TrainedModel], None]" = lambda path, trained: None
    runtime: tuple[str, ...] = ()
    backend: str = "tensorflow"
    fails_before: Mapping[str, str] = field(default_factory=FAILS_BEFORE.copy)
    fails_from_python: str = FAILS_FROM_PYTHON
    alias: str | None = None
    gives_back: bool = False

    def check_versions(self, installed: Mapping[str, str] | None = None) -> None:
        """Raises a `ValueError` that says what to install if this format needs a newer Keras.

        Args:
            installed: the versions of `"python"` and of the packages in `fails_before`; by default the installed ones.
        """
        if installed is None:
            installed = {"python": platform.python_version(), **{name: version(name) for name in self.fails_before}}
        if _number(installed["python"]) < _number(self.fails_from_python):
            return
        if any(_number(installed[name]) >= _number(first) for name, first in self.fails_before.items()):
            return
        found = ", ".join(f"{name} {installed[name]}" for name in self.fails_before)
        needed = self.fails_before["keras"]
        raise ValueError(
            f"{self.name} needs keras {needed} or later with {found} on Python {installed['python']}: "
            f"pip install 'keras=={needed}.*'"
        )


def named(model: "keras.Model") -> "keras.Model":
    """Returns the model with its output named `predictions`, which runtimes show; Keras would number it."""
    import keras

    return keras.Model(model.inputs, {"predictions": model.outputs[0]}, name=model.name)


def signature(model: "keras.Model") -> "list[keras.InputSpec]":
    """Returns the signature of the float input; Keras infers it only for a model that was called."""
    import keras

    return [keras.InputSpec(dtype="float32", shape=model.input_shape, name="image")]


def version(module: str) -> str:
    """Returns the version of the package that has the module."""
    try:
        return importlib.metadata.version(module.replace("_", "-"))
    except importlib.metadata.PackageNotFoundError:  # installed under another name: onnxruntime-gpu, tensorflow-cpu
        return getattr(importlib.import_module(module), "__version__", "unknown")


def _number(version: str) -> tuple[int, ...]:
    """Returns major and minor version."""
    return tuple(int(part) for part in re.findall(r"\d+", version)[:2])
