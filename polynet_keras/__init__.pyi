from . import checkpoints, cluster, data, deployment, engine, evaluation, layers, models, pretrained, studies, training
from .applications import InceptionResNet, PolyNet, decode_predictions, preprocess_input
from .loading import load_model
from .models.cost import list_structures
from .version import __version__

__all__ = [
    "InceptionResNet",
    "PolyNet",
    "__version__",
    "checkpoints",
    "cluster",
    "data",
    "decode_predictions",
    "deployment",
    "engine",
    "evaluation",
    "layers",
    "list_structures",
    "load_model",
    "models",
    "preprocess_input",
    "pretrained",
    "studies",
    "training",
]
