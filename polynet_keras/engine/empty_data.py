"""Empty data: Keras returns an empty history or list for it, or fails with an error about an internal name."""

from typing import Any

import keras


def refuse_empty(method: str, arguments: dict[str, Any], names: tuple[str, ...]) -> None:
    """Raises a `ValueError` if data is known to be empty before it is read.

    Args:
        method: the name of the called method.
        arguments: the arguments of the call.
        names: the names of the arguments that are data.
    """
    for name in names:
        if _is_empty(arguments.get(name)):
            raise empty_data(method, name)


def empty_data(method: str, argument: str) -> ValueError:
    """Returns the error of a method that got no batch."""
    return ValueError(
        f"{method}() got no batch of {argument}: the data is empty, a filter removed all of it, or it is smaller than "
        "one batch and the last batch is dropped (drop_remainder=True)"
    )


def _is_empty(data: Any) -> bool:
    if data is None:
        return False
    if hasattr(data, "cardinality"):  # a method of tf.data's datasets, and a number in distributed ones
        cardinality = data.cardinality
        return int(cardinality() if callable(cardinality) else cardinality) == 0
    if isinstance(data, keras.utils.PyDataset) or hasattr(data, "batch_sampler"):
        try:
            return len(data) == 0  # a PyDataset's may be None, and a DataLoader's unknown
        except (TypeError, NotImplementedError):
            return False
    shapes = [getattr(array, "shape", None) for array in keras.tree.flatten(data)]
    return bool(shapes) and all(shape is not None and len(shape) > 0 and shape[0] == 0 for shape in shapes)
