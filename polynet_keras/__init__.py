"""PolyNet for Keras 3."""

from polynet_keras.applications import InceptionResNet, PolyNet, decode_predictions, preprocess_input
from polynet_keras.models import list_structures

__version__ = "0.1.0"

__all__ = ["InceptionResNet", "PolyNet", "decode_predictions", "list_structures", "preprocess_input"]
