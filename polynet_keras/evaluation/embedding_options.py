"""Checks of the options for embeddings, before Keras is imported and a model is loaded."""

from polynet_keras.basics.checks import check_choice, check_integer
from polynet_keras.data.image_files import ON_ERROR

POOLINGS = ("avg", "max")
"""The values of `PolyNet`'s argument `pooling`."""


def check_embedding_options(stage: str | None, pooling: str, batch_size: int, on_error: str) -> None:
    """Raises a `ValueError` unless `extract_features` accepts these arguments."""
    if stage == "":
        raise ValueError("stage='' is empty; name a stage, such as stage_c, or leave it out")
    check_choice("pooling", pooling, POOLINGS)
    check_integer("batch_size", batch_size, 1)
    check_choice("on_error", on_error, ON_ERROR)
