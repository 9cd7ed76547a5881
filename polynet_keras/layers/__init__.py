"""Layers that Keras lacks: stochastic residual scaling, fused and cheaply synchronized batch normalization, a split."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

# Before any module of this package: what follows Keras's import needs them whole (`polynet_keras.registration`).
import keras  # noqa: E402, F401
