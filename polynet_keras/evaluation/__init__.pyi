from .converting import convert
from .ensemble import evaluate_ensemble
from .evaluating import evaluate
from .loading import TrainedModel, load_published, load_run
from .metrics import Counts
from .pooling import Pooling, pool
from .predicting import predict, predict_published
from .results import Result
from .scoring import score

__all__ = [
    "Counts",
    "Pooling",
    "Result",
    "TrainedModel",
    "convert",
    "evaluate",
    "evaluate_ensemble",
    "load_published",
    "load_run",
    "pool",
    "predict",
    "predict_published",
    "score",
]
