"""The network as a graph: the algebra of its residual units, its Inception blocks, its structures and their cost."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
