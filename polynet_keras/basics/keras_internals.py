"""All private names of Keras that this package reads and sets, and the consequence if a name is removed.

It is below every room and imports neither Keras nor a room: it looks only at its arguments. What Keras's classes offer
to their subclasses is in the subclasses. `tests/contracts` checks each name.
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
"""Undocumented parts of a `keras.Model` that the distributed step uses."""

CALLED_BY_KERAS = ("make_train_function", "make_test_function", "make_predict_function", "_maybe_symbolic_build")
"""Keras makes its steps with these methods of a model. Without one: AttributeError where it is replaced."""


def missing_parts(model: Any) -> list[str]:
    """Returns the `STEP_PARTS` that a model lacks; training under a strategy refuses such a model."""
    return [part for part in STEP_PARTS if not hasattr(model, part)]


def strategy_of(model: Any) -> Any:
    """Returns the strategy that a model was made under, or None. Without the name: AttributeError."""
    return model._distribute_strategy


def initial_epoch(model: Any) -> int | None:
    """Returns the epoch that a callback has `fit` begin with. Without the name: AttributeError in every fit."""
    return model._initial_epoch


def set_initial_epoch(model: Any, epoch: int | None) -> None:
    """Makes `fit` begin with an epoch. Without the name: AttributeError."""
    _set(model, "_initial_epoch", epoch)


def every_layer(model: Any) -> list[Any]:
    """Returns a model with all its layers, nested ones too. Without the name: AttributeError."""
    return list(model._flatten_layers())


def build_symbolically(model: Any, data_batch: Any) -> None:
    """Makes all variables from shapes. Without the name: `missing_parts` lists it."""
    model._symbolic_build(data_batch=data_batch)


def takes_training(model: Any) -> bool:
    """Whether a model's `call` has the argument `training`. Without the name: `missing_parts` lists it."""
    return model._call_has_training_arg


def loss_of_batch(model: Any, **arguments: Any) -> Any:
    """Returns the loss that a training step differentiates. Without the name: `missing_parts` lists it."""
    return model._compute_loss(**arguments)


def loss_tracker(model: Any) -> Any:
    """Returns the metric `loss` of the logs. Without the name: `missing_parts` lists it."""
    return model._loss_tracker


def change_losses(model: Any, change: Callable[[Any], Any]) -> None:
    """Replaces each loss by another one; there are no losses before they are built.

    Without the names: AttributeError in every fit under a strategy.
    """
    losses = [] if model._compile_loss is None else model._compile_loss._flat_losses or []
    for place, entry in enumerate(losses):
        losses[place] = entry._replace(loss=change(entry.loss))


def loss_metrics(model: Any) -> list[Any]:
    """Returns the metrics of each output's loss. Without the names: AttributeError in fits under a strategy."""
    return [] if model._compile_loss is None else model._compile_loss.metrics


def change_jax_state(model: Any, change: Callable[[Any], Any]) -> None:
    """Changes the values that a step on JAX has left for the variables, if there are any.

    Without the name: an error at the end of an epoch of several processes on JAX.
    """
    if getattr(model, "_jax_state", None):
        model._jax_state = change(model._jax_state)


def have_values(model: Any) -> None:
    """Tells Keras that the variables have their values, on JAX. Without the name: AttributeError at the end of data."""
    _set(model, "_jax_state_synced", True)


def nodes_by_depth(model: Any) -> dict[int, list[Any]]:
    """Returns the applications of layers in a functional model, those of the outputs at depth 0.

    The list that a layer keeps has its applications in all models. Without the name: AttributeError with every
    functional model.
    """
    return model._nodes_by_depth


def functional_of(sequential: Any) -> Any:
    """Returns the functional model inside a `keras.Sequential`, or None. Without the name: AttributeError."""
    return sequential._functional


# Layers, variables and tensors.


def own_variables(layer: Any) -> list[Any]:
    """Returns a layer's variables without those of its sublayers, in the order of Keras's files.

    Without the names: AttributeError.
    """
    return [*layer._trainable_variables, *layer._non_trainable_variables]


def set_holder(variable: Any, holder: Any) -> None:
    """Stores the value of a `keras.Variable` in another `tf.Variable`. Without the name: AttributeError."""
    _set(variable, "_value", holder)


def copy_notes(tensor: Any, other: Any, change: Callable[[Any], Any]) -> None:
    """Copies what Keras has attached to a tensor to another one, changed: its mask, the logits of probabilities.

    Most tensors have neither. Without the names: no error; masks are lost, and losses of saturated outputs are clipped.
    """
    for name in ("_keras_mask", "_keras_logits"):
        note = getattr(tensor, name, None)
        if note is not None:
            setattr(other, name, change(note))


def logits_of(probabilities: Any) -> Any:
    """Returns the logits that Keras's softmax attaches to its output, or None. Without the name: None, a NaN loss."""
    return getattr(probabilities, "_keras_logits", None)


def draw_from(layer: Any, generator: Any, parts: list[Any]) -> None:
    """Makes a random layer for images, and its sublayers, draw from a generator of TensorFlow.

    Without the names: AttributeError, or a RuntimeError because the layer draws from another generator.
    """
    for part in (layer, *parts):
        part.generator = generator
        part._backend_generators = {"tensorflow": generator}  # for the layer's TensorFlow code on another backend
    if layer._get_seed_generator("tensorflow") is not generator:
        raise RuntimeError(f"in this version of Keras the layer {layer.name!r} draws from its own generator")


def mix_in_order(transformation: dict[str, Any], order: Any) -> None:
    """Sets which images of a batch `MixUp` and `CutMix` mix. Without the name: KeyError."""
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
    """Returns the data that Keras's epoch iterator iterates over: on JAX and PyTorch once, so ask in each epoch.

    Without the name: AttributeError.
    """
    return epoch_iterator._get_iterator()


def source_of_data(epoch_iterator: Any) -> Callable[[], Any]:
    """Returns the function behind `data_of`, which `replace_data` does not change. Without the name: AttributeError."""
    return epoch_iterator._get_iterator


def replace_data(epoch_iterator: Any, data: Any) -> None:
    """Makes an epoch iterator iterate over other data. Without the name: AttributeError."""
    _set(epoch_iterator, "_get_iterator", lambda: data)


def leave_in_memory(epoch_iterator: Any) -> None:
    """Makes an epoch iterator on JAX yield NumPy's arrays. Without the names: AttributeError on several devices."""
    _set(epoch_iterator, "_get_iterator", epoch_iterator.data_adapter.get_jax_iterator)


def iterator_under_way(epoch_iterator: Any) -> Any:
    """Returns the iterator that `fit(steps_per_epoch=...)` continues, or None. Without the name: AttributeError."""
    return epoch_iterator._current_iterator


def dataset_of(epoch_iterator: Any) -> Any:
    """Returns the tf.data dataset that `fit` was given, or None. Without the names: AttributeError, RuntimeError."""
    adapter, kind = _adapter(epoch_iterator)
    return adapter._dataset if kind == "TFDatasetAdapter" else None


def py_dataset_of(epoch_iterator: Any) -> Any:
    """Returns the `keras.utils.PyDataset` given to `fit`, or None. Without the names: AttributeError, RuntimeError."""
    adapter, kind = _adapter(epoch_iterator)
    return adapter.py_dataset if kind == "PyDatasetAdapter" else None


def sampler_of(epoch_iterator: Any) -> Any:
    """Returns the sampler of the PyTorch `DataLoader` given to `fit`, or None.

    Without the names: AttributeError, RuntimeError.
    """
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
            f"this version of Keras reads its data with a {kind}, whose order is unknown; install a version that this "
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
"""The attributes that hold the state of Keras's callbacks, by class."""


def remembered(callback: Any, names: tuple[str, ...]) -> dict[str, Any]:
    """Returns the values of these attributes. Some public ones are set late. Without a private one: AttributeError."""
    return {name: getattr(callback, name) for name in names if name.startswith("_") or hasattr(callback, name)}


# Optimizers.


def strategy_of_optimizer(optimizer: Any) -> Any:
    """Returns the strategy that an optimizer was made under, on TensorFlow. Without the name: AttributeError."""
    return optimizer._distribution_strategy


@contextmanager
def gradients_are_summed(optimizer: Any) -> Iterator[None]:
    """Keeps an optimizer from summing gradients over the replicas again. Without the name: AttributeError."""
    before = optimizer._all_reduce_sum_gradients
    optimizer._all_reduce_sum_gradients = list
    try:
        yield
    finally:
        optimizer._all_reduce_sum_gradients = before


def _set(owner: Any, name: str, value: Any) -> None:
    """Sets an attribute that exists. A new attribute would have no effect, and would raise no error."""
    getattr(owner, name)
    setattr(owner, name, value)
