"""Where numbers come from: weights files, checked against the network, and the cards that go with them."""

from polynet_keras.pretrained.conversion import LoadReport, load_weights_file
from polynet_keras.pretrained.model_card import CARD_FILE, MODEL_FILE, ModelCard

__all__ = ["CARD_FILE", "MODEL_FILE", "LoadReport", "ModelCard", "load_weights_file"]
