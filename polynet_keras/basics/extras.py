"""Optional packages: told in one line, before any work, when they are missing."""

from importlib.util import find_spec

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
        "fastapi": "fastapi",
        "prometheus_client": "prometheus-client",
        "python_multipart": "python-multipart",
        "uvicorn": "uvicorn",
    },
}
"""By extra, then by the module that is imported."""


def require_extra(extra: str, *modules: str) -> None:
    """Raises a `ValueError` that says what to install unless all `modules` of an extra are there."""
    missing = [PACKAGES[extra][module] for module in modules if find_spec(module) is None]
    if missing:
        raise ValueError(
            f"not installed: {', '.join(missing)}; the extra `{extra}` has it: pip install {' '.join(missing)}"
        )
