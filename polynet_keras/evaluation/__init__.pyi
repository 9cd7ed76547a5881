from .comparing import Comparison, compare
from .contact_sheet import save_contact_sheet
from .converting import convert
from .ensemble import evaluate_ensemble
from .evaluating import Evaluation, evaluate
from .explaining import explain
from .extracting import extract_features
from .features import Features
from .loading import TrainedModel
from .metrics import Counts
from .paired import Paired
from .pooling import Pooling, pool
from .predicting import Prediction, predict
from .results import Result
from .scoring import score

__all__ = [
    "Comparison",
    "Counts",
    "Evaluation",
    "Features",
    "Paired",
    "Pooling",
    "Prediction",
    "Result",
    "TrainedModel",
    "compare",
    "convert",
    "evaluate",
    "evaluate_ensemble",
    "explain",
    "extract_features",
    "pool",
    "predict",
    "save_contact_sheet",
    "score",
]
