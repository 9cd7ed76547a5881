"""Layers that Keras lacks: stochastic residual scaling, a fused, cheaply synchronized batch normalization, a split."""

from polynet_keras.layers.batch_normalization import BatchNormalization, synchronize_batch_normalization
from polynet_keras.layers.channel_split import ChannelSplit
from polynet_keras.layers.stochastic_residual_scaling import StochasticResidualScaling

__all__ = ["BatchNormalization", "ChannelSplit", "StochasticResidualScaling", "synchronize_batch_normalization"]
