from .distributed_model import DistributedModel, DistributedTraining
from .network import Network

__all__ = [
    "DistributedModel",
    "DistributedTraining",
    "Network",
]
