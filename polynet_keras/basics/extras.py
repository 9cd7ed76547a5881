"""Optional packages: one message names the missing ones before any work starts."""

import importlib.metadata
from collections.abc import Collection, Mapping, Sequence
from importlib.util import find_spec

DISTRIBUTION = "polynet_keras"
PACKAGES = {
    "data": {
        "PIL": "pillow",
        "matplotlib": "matplotlib",
        "scipy": "scipy",
        "sklearn": "scikit-learn",
        "tensorboard": "tensorboard",
    },
    "deploy": {
        "ai_edge_litert": "ai-edge-litert",
        "nncf": "nncf",
        "onnx": "onnx",
        "onnxruntime": "onnxruntime",
        "onnxscript": "onnxscript",
        "openvino": "openvino",
        "tf2onnx": "tf2onnx",
    },
    "serve": {
        "PIL": "pillow",
        "fastapi": "fastapi",
        "prometheus_client": "prometheus-client",
        "python_multipart": "python-multipart",
        "starlette": "starlette",
        "uvicorn": "uvicorn",
    },
    "tables": {"pyarrow": "pyarrow"},
}
"""For each extra, its packages by the name of the imported module."""


def require_extra(extra: str, *modules: str) -> None:
    """Raises a `ValueError` that says what to install unless all `modules` of an extra are installed."""
    require_extras({extra: modules})


def require_extras(needed: Mapping[str, Collection[str]]) -> None:
    """Raises a `ValueError` that lists the missing packages of all extras, unless all are installed.

    Args:
        needed: modules by extra.
    """
    missing = {extra: _missing(extra, modules) for extra, modules in needed.items()}
    extras = [extra for extra, packages in missing.items() if packages]
    if extras:
        packages = [package for of_extra in missing.values() for package in of_extra]
        *others, last = (f"`{extra}`" for extra in extras)
        have = f"the extras {', '.join(others)} and {last} have them" if others else f"the extra {last} has it"
        raise ValueError(f"not installed: {', '.join(packages)}; {have}: pip install {' '.join(packages)}")


def missing_packages(extra: str) -> list[str]:
    """The packages of an extra that are not installed."""
    return _missing(extra, PACKAGES[extra])


def install_line(extras: Sequence[str]) -> str:
    """Returns the command that installs extras: by name if pip knows this package, else package by package."""
    try:
        importlib.metadata.version(DISTRIBUTION)
    except importlib.metadata.PackageNotFoundError:
        packages = dict.fromkeys(package for extra in extras for package in PACKAGES[extra].values())
        return f"pip install {' '.join(packages)}"
    return f"pip install '{DISTRIBUTION}[{','.join(extras)}]'"


def _missing(extra: str, modules: Collection[str]) -> list[str]:
    return [PACKAGES[extra][module] for module in modules if find_spec(module) is None]
