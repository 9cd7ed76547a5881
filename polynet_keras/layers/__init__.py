"""Layers that Keras lacks: stochastic residual scaling and a fused batch normalization."""

from polynet_keras.layers.batch_normalization import BatchNormalization
from polynet_keras.layers.stochastic_residual_scaling import StochasticResidualScaling

__all__ = ["BatchNormalization", "StochasticResidualScaling"]
