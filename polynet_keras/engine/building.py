"""Before the first distributed step: what can be refused is refused, and all variables are made."""

import functools

import keras
import numpy as np
import tensorflow as tf

from polynet_keras.basics import keras_internals
from polynet_keras.cluster.workers import worker_count
from polynet_keras.engine.internals import global_seed, one_replica


def build(model: keras.Model, iterator, data_batch) -> None:
    """Makes the variables of a model, its losses, metrics and optimizer, from the shapes of its data.

    Args:
        model: built and compiled in the scope of a strategy.
        iterator: Keras's epoch iterator, or None.
        data_batch: a batch, where there is no iterator.
    """
    check_keras(model)
    if iterator is not None:
        data_batch = keras.tree.map_structure(one_replica, keras_internals.data_of(iterator).element_spec)
    data_batch = keras.tree.map_structure(_symbol, data_batch)
    with model.distribute_strategy.scope():
        keras_internals.build_symbolically(model, data_batch)
        if has_keras_steps(model):
            _mirror_metrics(model)
            _reduce_losses(model)


def check_keras(model: keras.Model) -> None:
    """Raises `RuntimeError` if this Keras is not one whose internals the distributed step knows."""
    missing = keras_internals.missing_parts(model)
    if missing:
        raise RuntimeError(
            f"Keras {keras.__version__} has no {', '.join(missing)} in its models, which distributed training uses; "
            "install a version of Keras that this package was tested with (3.14 or 3.15)"
        )


def check_call(model: keras.Model, method: str, arguments: dict) -> None:
    """Refuses what would train or count wrongly, or wait for ever.

    Raises:
        ValueError: called in the strategy's scope; compiled outside of it, or with an optimizer that was made there; a
            callback of Keras's that several workers cannot have; shuffled arrays without a seed that all workers share.
    """
    if tf.distribute.has_strategy():
        raise ValueError(f"model.{method}() is called outside of strategy.scope(); build and compile the model inside")
    if method == "fit" and model.compiled and model.distribute_strategy.num_replicas_in_sync > 1:
        optimizer = getattr(model.optimizer, "inner_optimizer", model.optimizer)
        if keras_internals.strategy_of_optimizer(optimizer) is not model.distribute_strategy:
            raise ValueError(
                f"the optimizer {optimizer.name!r} was made outside of strategy.scope(); make it, and call compile(), "
                "inside"
            )
    if worker_count(model.distribute_strategy) == 1:
        return
    for callback in _as_list(arguments.get("callbacks")):
        if isinstance(callback, keras.callbacks.BackupAndRestore):
            raise ValueError(
                "keras.callbacks.BackupAndRestore crashes with several workers; use "
                "polynet_keras.checkpoints.callback.Checkpoints, which also goes on within an epoch"
            )
    shuffles = method == "fit" and arguments.get("shuffle", True)
    if shuffles and _holds_arrays(arguments.get("x")) and global_seed() is None:
        raise ValueError(
            "fit() shuffles arrays, and without a common seed each worker would do so in its own way: call "
            "keras.utils.set_random_seed(SEED) on every worker first, or pass shuffle=False or a tf.data.Dataset"
        )


def has_keras_steps(model: keras.Model) -> bool:
    """Whether the model's training and test steps are Keras's own."""
    return all(
        getattr(getattr(model, step), "__func__", None) is getattr(keras.Model, step)
        for step in ("train_step", "test_step")
    )


def _mirror_metrics(model: keras.Model) -> None:
    """Has every replica hold the metrics' totals, in place of its own part of them.

    Keras declares them as sums that are read over all workers: one collective a variable and reading, and only where
    all workers read at once.
    """
    for variable in model.metrics_variables:
        value = variable.value
        if not isinstance(value, tf.Variable) or value.synchronization != tf.VariableSynchronization.ON_READ:
            continue
        initial = model.distribute_strategy.experimental_local_results(value)[0]
        holder = tf.Variable(
            tf.convert_to_tensor(initial),
            trainable=False,
            name=variable.name,
            aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA,
        )
        keras_internals.set_holder(variable, holder)


def _reduce_losses(model: keras.Model) -> None:
    """Has every loss of a model reduced to one number, and divided by the number of replicas, as Keras does with most.

    It leaves a loss that returns one number, its own mean, as it is, which would count once for each replica; and a
    vector of no losses, where a replica is known to have no examples.
    """

    def reduced(loss):  # an earlier call may have made it
        return loss if isinstance(loss, _ReducedLoss) else _ReducedLoss(loss)

    keras_internals.change_losses(model, reduced)


class _ReducedLoss:
    """A loss whose every value is reduced.

    Args:
        loss: Keras's object, which is left as it is.
    """

    def __init__(self, loss: keras.losses.Loss):
        # `copy.copy` would have Keras save and load it.
        self._loss = object.__new__(type(loss))
        self._loss.__dict__.update(loss.__dict__)
        self._loss.call = functools.partial(_at_least_vector, loss.call)

    def __call__(self, y_true, y_pred, sample_weight=None):
        value = self._loss(y_true, y_pred, sample_weight)
        return keras.ops.sum(value) if tuple(value.shape) == (0,) else value


def _at_least_vector(call, y_true, y_pred):
    value = keras.ops.convert_to_tensor(call(y_true, y_pred))
    return keras.ops.reshape(value, (1,)) if len(value.shape) == 0 else value


def _symbol(value):
    """A shape and a dtype, for Keras to build with."""
    if value is None or isinstance(value, (tf.experimental.Optional, tf.OptionalSpec)):
        return None
    if not hasattr(value, "dtype"):
        value = np.asarray(value)
    return keras.KerasTensor(tuple(value.shape), keras.backend.standardize_dtype(value.dtype))


def _as_list(callbacks) -> list:
    if callbacks is None:
        return []
    if isinstance(callbacks, keras.callbacks.CallbackList):
        return list(callbacks.callbacks)
    return list(callbacks) if isinstance(callbacks, (list, tuple)) else [callbacks]


def _holds_arrays(x) -> bool:
    """Whether Keras shuffles by itself: it does arrays, not datasets and generators."""
    return any(isinstance(part, (np.ndarray, tf.Tensor, list)) for part in keras.tree.flatten(x)) or isinstance(x, list)
