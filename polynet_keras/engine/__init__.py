"""The model whose `fit` works with any strategy, and its steps: compiled ones, and those of many replicas."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
