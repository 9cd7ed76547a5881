from .batch_normalization import BatchNormalization, synchronize_batch_normalization
from .channel_split import ChannelSplit
from .stochastic_residual_scaling import StochasticResidualScaling

__all__ = [
    "BatchNormalization",
    "ChannelSplit",
    "StochasticResidualScaling",
    "synchronize_batch_normalization",
]
