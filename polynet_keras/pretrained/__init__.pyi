from .conversion import load_weights_file
from .model_card import ModelCard
from .registry import PublishedCheckpoint, list_published, published

__all__ = [
    "ModelCard",
    "PublishedCheckpoint",
    "list_published",
    "load_weights_file",
    "published",
]
