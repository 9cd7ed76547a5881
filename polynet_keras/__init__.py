"""PolyNet for Keras 3.

Importing it registers every class of ours that a saved model may name: `keras.saving.load_model` needs no more.
"""

# Imported for that only: optimizers, schedules and models.
import polynet_keras.engine.distributed_model
import polynet_keras.training.optimizers
import polynet_keras.training.recipes.schedule  # noqa: F401
from polynet_keras.applications import InceptionResNet, PolyNet, decode_predictions, preprocess_input
from polynet_keras.models import list_structures
from polynet_keras.version import __version__

__all__ = ["InceptionResNet", "PolyNet", "__version__", "decode_predictions", "list_structures", "preprocess_input"]
