"""Optional dependencies: told in one line, before any work, when they are missing."""

from importlib.util import find_spec


def require_data_extra(*modules: str) -> None:
    """Raises a `ValueError` that names what to install unless all modules of the extra `data` are there."""
    missing = [module for module in modules if find_spec(module) is None]
    if missing:
        raise ValueError(f"{', '.join(missing)} not installed: pip install 'polynet_keras[data]'")
