from .cluster import Cluster
from .failures import PeerFailure, peer_failures
from .inputs import distributed_dataset
from .strategies import Communication, open_strategy

__all__ = [
    "Cluster",
    "Communication",
    "PeerFailure",
    "distributed_dataset",
    "open_strategy",
    "peer_failures",
]
