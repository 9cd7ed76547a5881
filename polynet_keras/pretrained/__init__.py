"""Where numbers come from: weights files, checked against the network, and the cards that go with them."""

from polynet_keras.pretrained.model_card import CARD_FILE, MODEL_FILE, ModelCard
from polynet_keras.pretrained.weights_file import check_weights_argument, load_weights_file

__all__ = ["CARD_FILE", "MODEL_FILE", "ModelCard", "check_weights_argument", "load_weights_file"]
