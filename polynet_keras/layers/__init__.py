"""Layers that Keras lacks: stochastic residual scaling, a fused, cheaply synchronized batch normalization, a split."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
