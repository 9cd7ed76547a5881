"""Layers that Keras lacks: stochastic residual scaling and a fused, cheaply synchronized batch normalization."""

from polynet_keras.layers.batch_normalization import BatchNormalization, synchronize_batch_normalization
from polynet_keras.layers.stochastic_residual_scaling import StochasticResidualScaling

__all__ = ["BatchNormalization", "StochasticResidualScaling", "synchronize_batch_normalization"]
