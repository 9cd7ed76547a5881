"""Before the first distributed step: checks all that can be checked, and makes all variables."""

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
        model: a model that was built and compiled in the scope of a strategy.
        iterator: Keras's epoch iterator, or None.
        data_batch: a batch, if there is no iterator.
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
    """Raises `RuntimeError` if this version of Keras lacks internals that the distributed step uses."""
    missing = keras_internals.missing_parts(model)
    if missing:
        raise RuntimeError(
            f"the models of Keras {keras.__version__} lack {', '.join(missing)}, which distributed training uses; "
            "install a version of Keras that this package was tested with (3.14 or 3.15)"
        )


def check_call(model: keras.Model, method: str, arguments: dict) -> None:
    """Refuses calls that would train or count wrongly, or wait for ever.

    Raises:
        ValueError: the call is inside of the strategy's scope; the model was compiled outside of it, or with an
            optimizer from outside; a callback of Keras does not work with several workers; or arrays are shuffled
            without a seed that all workers share.
    """
    if tf.distribute.has_strategy():
        raise ValueError(f"call model.{method}() outside of strategy.scope(); build and compile the model inside")
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
                "polynet_keras.checkpoints.callback.Checkpoints, which also resumes within an epoch"
            )
    shuffles = method == "fit" and arguments.get("shuffle", True)
    if shuffles and _holds_arrays(arguments.get("x")) and global_seed() is None:
        raise ValueError(
            "fit() shuffles arrays, and without a common seed each worker would shuffle in its own order: call "
            "keras.utils.set_random_seed(SEED) on every worker first, or pass shuffle=False or a tf.data.Dataset"
        )


def has_keras_steps(model: keras.Model) -> bool:
    """Whether the model has Keras's own training and test steps."""
    return all(
        getattr(getattr(model, step), "__func__", None) is getattr(keras.Model, step)
        for step in ("train_step", "test_step")
    )


def _mirror_metrics(model: keras.Model) -> None:
    """Makes every replica hold the metrics' totals, instead of its own part of them.

    Keras declares them as sums that are read over all workers. Each reading of a variable is then a collective, and
    possible only if all workers read at once.
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
    """Reduces every loss of a model to one number, divided by the number of replicas, as Keras does with most losses.

    Keras does not divide a loss that returns one number, its own mean: it would count once for each replica. It also
    leaves an empty vector of losses as it is, if a replica is known to have no examples.
    """

    def reduced(loss):  # an earlier call may have wrapped it
        return loss if isinstance(loss, _ReducedLoss) else _ReducedLoss(loss)

    keras_internals.change_losses(model, reduced)


class _ReducedLoss:
    """A loss whose values are always reduced.

    Args:
        loss: Keras's object, which is not changed.
    """

    def __init__(self, loss: keras.losses.Loss):
        # Keras would save and load an object made by `copy.copy`.
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
    """Returns a shape and a dtype from which Keras can build."""
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
    """Whether Keras shuffles the data: it shuffles arrays, but not datasets and generators."""
    return any(isinstance(part, (np.ndarray, tf.Tensor, list)) for part in keras.tree.flatten(x)) or isinstance(x, list)
