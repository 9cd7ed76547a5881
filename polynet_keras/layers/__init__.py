"""Layers that Keras lacks: stochastic residual scaling, fused and cheaply synchronized batch normalization, a split."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

# Import Keras before any module of this package: registration needs complete modules (`polynet_keras.registration`).
import keras  # noqa: E402, F401
