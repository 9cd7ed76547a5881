"""Where numbers come from: published checkpoints by name, weights files, and the cards that go with them."""

from polynet_keras.pretrained.conversion import LoadReport, load_weights_file
from polynet_keras.pretrained.model_card import CARD_FILE, MODEL_FILE, ModelCard
from polynet_keras.pretrained.registry import PublishedCheckpoint, published

__all__ = [
    "CARD_FILE",
    "MODEL_FILE",
    "LoadReport",
    "ModelCard",
    "PublishedCheckpoint",
    "load_weights_file",
    "published",
]
