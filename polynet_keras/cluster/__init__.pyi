from .cluster import Cluster
from .communication import Communication
from .failures import PeerFailure, peer_failures
from .inputs import distributed_dataset
from .strategies import open_strategy

__all__ = [
    "Cluster",
    "Communication",
    "PeerFailure",
    "distributed_dataset",
    "open_strategy",
    "peer_failures",
]
