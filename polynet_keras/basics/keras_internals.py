"""All that this package reads and sets of Keras without a public name, and what happens if a name goes.

It stands below every room and imports neither Keras nor a room: it looks only at what it is given. What Keras's classes
have for their subclasses stands in the subclasses. `tests/contracts` holds each name to what is needed of it.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

# Models.

STEP_PARTS = (
    "_call_has_training_arg",
    "_compile_loss",
    "_compute_loss",
    "_flatten_layers",
    "_loss_tracker",
    "_symbolic_build",
    "get_metrics_result",
)
"""What the distributed step uses of a `keras.Model` beyond its documented methods."""

CALLED_BY_KERAS = ("make_train_function", "make_test_function", "make_predict_function", "_maybe_symbolic_build")
"""The methods of a model by which Keras makes its steps. Without one: AttributeError where it is replaced."""


def missing_parts(model: Any) -> list[str]:
    """Those of `STEP_PARTS` that a model has not, which its training under a strategy refuses."""
    return [part for part in STEP_PARTS if not hasattr(model, part)]


def strategy_of(model: Any) -> Any:
    """The strategy that a model was made under, or None. Without the name: AttributeError."""
    return model._distribute_strategy


def initial_epoch(model: Any) -> int | None:
    """Where a callback has `fit` begin. Without the name: AttributeError in every fit of our models."""
    return model._initial_epoch


def set_initial_epoch(model: Any, epoch: int | None) -> None:
    """Has `fit` begin with an epoch. Without the name: AttributeError."""
    _set(model, "_initial_epoch", epoch)


def every_layer(model: Any) -> list[Any]:
    """A model, its layers and theirs. Without the name: AttributeError."""
    return list(model._flatten_layers())


def build_symbolically(model: Any, data_batch: Any) -> None:
    """Makes all variables from shapes. Without the name, `missing_parts` has it."""
    model._symbolic_build(data_batch=data_batch)


def takes_training(model: Any) -> bool:
    """Whether a model's `call` has the argument `training`. Without the name, `missing_parts` has it."""
    return model._call_has_training_arg


def loss_of_batch(model: Any, **arguments: Any) -> Any:
    """What a training step differentiates. Without the name, `missing_parts` has it."""
    return model._compute_loss(**arguments)


def loss_tracker(model: Any) -> Any:
    """The metric `loss` of the logs. Without the name, `missing_parts` has it."""
    return model._loss_tracker


def change_losses(model: Any, change: Callable[[Any], Any]) -> None:
    """Puts another loss in the place of each; there is none before they are built.

    Without the names: AttributeError in every fit under a strategy.
    """
    losses = [] if model._compile_loss is None else model._compile_loss._flat_losses or []
    for place, entry in enumerate(losses):
        losses[place] = entry._replace(loss=change(entry.loss))


def loss_metrics(model: Any) -> list[Any]:
    """The metrics that show the loss of each output. Without the names: AttributeError in fits under a strategy."""
    return [] if model._compile_loss is None else model._compile_loss.metrics


def nodes_by_depth(model: Any) -> dict[int, list[Any]]:
    """The applications of layers in a functional model, the outputs' at depth 0.

    A layer's own would be those of all models. Without the name: AttributeError with every functional model.
    """
    return model._nodes_by_depth


def functional_of(sequential: Any) -> Any:
    """The functional model that a `keras.Sequential` has made of itself, or None. Without the name: AttributeError."""
    return sequential._functional


# Layers, variables and tensors.


def own_variables(layer: Any) -> list[Any]:
    """A layer's, not those of its layers, in the order of Keras's files. Without the names: AttributeError."""
    return [*layer._trainable_variables, *layer._non_trainable_variables]


def set_holder(variable: Any, holder: Any) -> None:
    """Has another `tf.Variable` hold what a `keras.Variable` stands for. Without the name: AttributeError."""
    _set(variable, "_value", holder)


def copy_notes(tensor: Any, other: Any, change: Callable[[Any], Any]) -> None:
    """Hangs on another tensor what Keras has hung on this one, changed: its mask, the logits of probabilities.

    Most tensors have neither. Without the names: silence; masks are lost, and losses of saturated outputs are clipped.
    """
    for name in ("_keras_mask", "_keras_logits"):
        note = getattr(tensor, name, None)
        if note is not None:
            setattr(other, name, change(note))


def logits_of(probabilities: Any) -> Any:
    """The logits that Keras's softmax has hung on its output, or None. Without the name: None, and a loss of NaN."""
    return getattr(probabilities, "_keras_logits", None)


def draw_from(layer: Any, generator: Any, parts: list[Any]) -> None:
    """Has a random layer for images, and the layers it is made of, draw from a generator, for TensorFlow.

    Without the names: AttributeError, or a RuntimeError that says that the layer draws from another.
    """
    for part in (layer, *parts):
        part.generator = generator
        part._backend_generators = {"tensorflow": generator}  # where another backend than TensorFlow is Keras's
    if layer._get_seed_generator("tensorflow") is not generator:
        raise RuntimeError(f"the layer {layer.name!r} of this version of Keras draws from a generator of its own")


def mix_in_order(transformation: dict[str, Any], order: Any) -> None:
    """Says whom `MixUp` and `CutMix` mix with whom in a batch. Without the name: KeyError."""
    transformation["permutation_order"]
    transformation["permutation_order"] = order


# The data of `fit`.

ADAPTERS = (
    "ArrayDataAdapter",
    "GeneratorDataAdapter",
    "GrainDatasetAdapter",
    "PyDatasetAdapter",
    "TFDatasetAdapter",
    "TorchDataLoaderAdapter",
)


def data_of(epoch_iterator: Any) -> Any:
    """What Keras's epoch iterator makes an iterator of, in each epoch. Without the name: AttributeError."""
    return epoch_iterator._get_iterator()


def replace_data(epoch_iterator: Any, data: Any) -> None:
    """Has an epoch iterator iterate over something else. Without the name: AttributeError."""
    _set(epoch_iterator, "_get_iterator", lambda: data)


def iterator_under_way(epoch_iterator: Any) -> Any:
    """The iterator that `fit(steps_per_epoch=...)` goes on with, or None. Without the name: AttributeError."""
    return epoch_iterator._current_iterator


def dataset_of(epoch_iterator: Any) -> Any:
    """The tf.data dataset that `fit` was given, or None. Without the names: AttributeError, RuntimeError."""
    adapter, kind = _adapter(epoch_iterator)
    return adapter._dataset if kind == "TFDatasetAdapter" else None


def py_dataset_of(epoch_iterator: Any) -> Any:
    """The `keras.utils.PyDataset` that `fit` was given, or None. Without the names: AttributeError, RuntimeError."""
    adapter, kind = _adapter(epoch_iterator)
    return adapter.py_dataset if kind == "PyDatasetAdapter" else None


def sampler_of(epoch_iterator: Any) -> Any:
    """Of the PyTorch `DataLoader` that `fit` was given, or None. Without the names: AttributeError, RuntimeError."""
    adapter, kind = _adapter(epoch_iterator)
    return adapter._dataloader.sampler if kind == "TorchDataLoaderAdapter" else None


def keras_shuffles(epoch_iterator: Any) -> bool:
    """Whether Keras itself shuffles: arrays or a PyDataset. Without the names: AttributeError, RuntimeError."""
    adapter, kind = _adapter(epoch_iterator)
    if kind == "ArrayDataAdapter":
        return bool(adapter._shuffle)
    return kind == "PyDatasetAdapter" and bool(adapter.shuffle)


def _adapter(epoch_iterator: Any) -> tuple[Any, str]:
    adapter = epoch_iterator.data_adapter
    classes = [one for one in type(adapter).__mro__ if one.__module__.partition(".")[0] == "keras"]
    if not classes or classes[0].__name__ == "DataAdapter":
        return adapter, ""  # the user's own
    kind = classes[0].__name__
    if kind not in ADAPTERS:
        raise RuntimeError(
            f"this version of Keras reads its data by a {kind}, whose order is not known; install a version that this "
            "package was tested with (3.14 or 3.15)"
        )
    return adapter, kind


# Callbacks.

CALLBACK_STATE = {
    "EarlyStopping": ("best", "wait", "stopped_epoch", "best_epoch", "best_weights"),
    "History": ("history", "epoch"),
    "ModelCheckpoint": ("best", "_batches_seen_since_last_saving", "_last_batch_seen"),
    "ReduceLROnPlateau": ("best", "wait", "cooldown_counter"),
    "SwapEMAWeights": ("_ema_weights_in_model",),
    "TensorBoard": ("_global_train_batch", "_global_test_batch"),
}
"""What Keras's callbacks remember, by class."""


def remembered(callback: Any, names: tuple[str, ...]) -> dict[str, Any]:
    """The values of such attributes. Some public ones are set late; without a private one: AttributeError."""
    return {name: getattr(callback, name) for name in names if name.startswith("_") or hasattr(callback, name)}


# Optimizers.


def strategy_of_optimizer(optimizer: Any) -> Any:
    """The strategy that an optimizer was made under, on TensorFlow. Without the name: AttributeError."""
    return optimizer._distribution_strategy


@contextmanager
def gradients_are_summed(optimizer: Any) -> Iterator[None]:
    """Has an optimizer not sum gradients over the replicas once more. Without the name: AttributeError."""
    before = optimizer._all_reduce_sum_gradients
    optimizer._all_reduce_sum_gradients = list
    try:
        yield
    finally:
        optimizer._all_reduce_sum_gradients = before


def _set(owner: Any, name: str, value: Any) -> None:
    """Sets an attribute that is there: a new one would change nothing, without an error."""
    getattr(owner, name)
    setattr(owner, name, value)
