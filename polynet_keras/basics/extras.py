"""Optional dependencies: told in one line, before any work, when they are missing."""

from importlib.util import find_spec

PACKAGES = {
    "PIL": "pillow",
    "matplotlib": "matplotlib",
    "scipy": "scipy",
    "sklearn": "scikit-learn",
    "tensorboard": "tensorboard",
}
"""The extra `data`, by the module that is imported."""


def require_data_extra(*modules: str) -> None:
    """Raises a `ValueError` that says what to install unless all `modules`, of `PACKAGES`, are there."""
    missing = [PACKAGES[module] for module in modules if find_spec(module) is None]
    if missing:
        raise ValueError(
            f"not installed: {', '.join(missing)}; the extra `data` has it: pip install {' '.join(missing)}"
        )
