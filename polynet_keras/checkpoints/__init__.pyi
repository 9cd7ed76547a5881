from .callback import Checkpoints
from .interruption import Preempted

__all__ = [
    "Checkpoints",
    "Preempted",
]
