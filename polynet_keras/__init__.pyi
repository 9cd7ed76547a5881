from .applications import InceptionResNet, PolyNet, decode_predictions, preprocess_input
from .models.cost import list_structures
from .version import __version__

__all__ = [
    "InceptionResNet",
    "PolyNet",
    "__version__",
    "decode_predictions",
    "list_structures",
    "preprocess_input",
]
