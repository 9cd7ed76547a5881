"""The package's version, where `setup.py` and files that name it read it."""

__version__ = "0.1.0"
