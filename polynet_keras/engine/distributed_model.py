"""A `keras.Model` whose `fit`, `evaluate` and `predict` work on several devices and in several processes."""

import functools
import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar, cast

import keras

from polynet_keras.basics import keras_internals
from polynet_keras.cluster.jax_devices import jax_devices, one_device
from polynet_keras.engine.empty_data import empty_data, refuse_empty
from polynet_keras.engine.session import TrainingSession

if TYPE_CHECKING:
    _Base: Any = keras.Model
else:
    # A mixin: Keras permanently rewrites the bases of a model's class when it makes a functional model of it.
    _Base = object

WRITERS = (keras.callbacks.CSVLogger, keras.callbacks.ModelCheckpoint, keras.callbacks.TensorBoard)
"""Keras's callbacks that only write files: only the chief gets them."""


Method = TypeVar("Method", bound=Callable[..., Any])


def _as_keras(method: Method) -> Callable[[Callable[..., Any]], Method]:
    """A decorator: the override of a Keras method gets its signature and docstring, in the installed version."""

    def decorate(override: Callable[..., Any]) -> Method:
        wrapped = functools.wraps(method)(override)
        # The backends' methods have no docstring; their base class has it.
        name = method.__name__
        docs = [vars(base)[name].__doc__ for base in keras.Model.__mro__ if name in vars(base)]
        wrapped.__doc__ = next(filter(None, docs), None)
        return cast(Method, wrapped)

    return decorate


class DistributedTraining(_Base):
    """A mixin for `keras.Model`: N workers get the weights, losses and metrics of one, from the same global batches.

    Without a strategy, and on backends other than TensorFlow, the model works as Keras's; on several devices of JAX it
    also takes batches that have no equal parts (`engine.on_jax`). Built and compiled in the
    scope of a `MultiWorkerMirroredStrategy`, `MirroredStrategy` or `TPUStrategy`, it has the steps of
    `engine.replicated_step`. Keras's own steps fail with several workers (keras-team/keras issue 20585), give uneven
    parts of a batch equal weight, clip before they sum, draw the same dropout masks on all replicas, and let the moving
    statistics of the workers drift apart.

        strategy = tf.distribute.MultiWorkerMirroredStrategy()
        with strategy.scope():
            model = DistributedModel(inputs, outputs)  # or of any functional net: (net.inputs, net.outputs)
            model.compile("rmsprop", "sparse_categorical_crossentropy", metrics=["accuracy"])
        model.fit(dataset)

    A subclassed model names the mixin first: `class Net(DistributedTraining, keras.Model)`.

    What stays the same and what differs:

    * A batch of a dataset or of arrays is the global batch: the strategy distributes it, every worker computes the mean
      over the whole batch, and the learning rate is for the global batch. Datasets of
      `strategy.distribute_datasets_from_function` hold each worker's own part.
    * All variables are equal on all workers after every step, so the chief can save at any time. The moving statistics
      of batch normalization are means over the replicas, weighted by examples.
    * Random layers draw different numbers on each replica, except those with `draws_agree`.
    * Losses, metrics, `history` and logs are those of the global batch on every worker. Metrics must be sums, as Keras
      declares their variables.
    * Only the chief shows progress, and keeps Keras's callbacks `CSVLogger`, `ModelCheckpoint` and `TensorBoard`.
    * `train_on_batch`, `test_on_batch` and `predict_on_batch` take the global batch on every worker.
    * `fit`, `evaluate` and `predict` are called outside of the strategy's scope.
    * Keras's own models, such as a `keras.Sequential` that begins with a PolyNet, also train like this, if there are
      several workers and a model of this package was made in the strategy's scope before.
    * Your own `train_step` or `test_step` runs as in Keras, repaired only so that it runs: it sees one replica's part,
      and the logs are means over replicas.

    Examples:
        >>> class Net(DistributedTraining, keras.Model):
        ...     def call(self, x):
        ...         return 2 * x
        >>> net = Net()
        >>> net.compile(loss="mse")
        >>> net.evaluate(np.ones((4, 1)), np.ones((4, 1)), verbose=0)
        1.0
    """

    training_session: TrainingSession | None = None
    """The running call of `fit`."""
    train_function: Any
    test_function: Any
    predict_function: Any
    interruption: Any = None
    """The `checkpoints.interruption.Interruption` while a callback listens to SIGTERM: every training and test step
    asks all workers whether one must stop."""
    _evaluates: bool = False
    gradient_dtype: str = "float32"
    """The dtype in which the replicas' gradients are summed: `"float16"` takes half the bytes, for an error that
    `engine.compression` bounds. Set it before `fit`. Your own `train_step` sums its gradients itself."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        if self._tensorflow_strategy is not None:
            from polynet_keras.cluster.workers import worker_count

            if worker_count(self._tensorflow_strategy) > 1:
                from polynet_keras.engine.plain_models import train_plain_models

                train_plain_models(self, DistributedTraining)

    @_as_keras(keras.Model.fit)
    def fit(self, *args, **kwargs):
        arguments = self._on_this_worker("fit", args, kwargs)
        refuse_empty("fit", arguments, ("x", "validation_data"))
        with TrainingSession(self, arguments) as session:
            history = super().fit(**session.arguments)
        if keras.backend.backend() == "jax":
            from polynet_keras.engine.on_jax import separate_averages

            separate_averages(self)
        # A user's own step may return nothing.
        if history.epoch and not history.history and type(self).train_step is keras.Model.train_step:
            raise empty_data("fit", "x")
        return history

    @_as_keras(keras.Model.evaluate)
    def evaluate(self, *args, **kwargs):
        arguments = self._on_this_worker("evaluate", args, kwargs)
        self._evaluates, before = True, self._evaluates
        try:
            if arguments.get("_use_cached_eval_dataset"):  # `fit` calls it; an error would lose the epoch
                return super().evaluate(**arguments)
            refuse_empty("evaluate", arguments, ("x",))
            results = super().evaluate(**arguments)
        finally:
            self._evaluates = before
        if isinstance(results, (list, dict)) and not results and type(self).test_step is keras.Model.test_step:
            raise empty_data("evaluate", "x")
        return results

    @_as_keras(keras.Model.predict)
    def predict(self, *args, **kwargs):
        arguments = self._on_this_worker("predict", args, kwargs)
        refuse_empty("predict", arguments, ("x",))
        if jax_devices() is not None:
            self.make_predict_function()
        try:
            # Keras divides a batch into equal parts for the devices, and fails at the smaller last one.
            with one_device():
                return super().predict(**arguments)
        except UnboundLocalError:  # Keras's error if there was no batch
            raise empty_data("predict", "x") from None

    @_as_keras(keras.Model.predict_on_batch)
    def predict_on_batch(self, x):
        if self._tensorflow_strategy is not None:
            from polynet_keras.engine.batches import share_of_worker

            x = share_of_worker(x, self._tensorflow_strategy)
        return super().predict_on_batch(x)

    def make_train_function(self, force=False):
        if self._tensorflow_strategy is None:
            return self._make_function_of_keras("train", force)
        if self.train_function is None or force:
            from polynet_keras.engine.replicated_step import make_step

            self.train_function = make_step(self, trains=True)

    def make_test_function(self, force=False):
        if self._tensorflow_strategy is None:
            return self._make_function_of_keras("test", force)
        if self.test_function is None or force:
            from polynet_keras.engine.replicated_step import make_step

            self.test_function = make_step(self, trains=False)

    def make_predict_function(self, force=False):
        if self._tensorflow_strategy is None:
            return self._make_function_of_keras("predict", force)
        if self.predict_function is None or force:
            from polynet_keras.engine.prediction import PredictionStep

            self.predict_function = PredictionStep(self)

    def _make_function_of_keras(self, kind: str, force: bool) -> None:
        """Makes Keras's step without a strategy of TensorFlow; on several devices of JAX it divides the batches."""
        name = f"{kind}_function"
        if getattr(self, name) is not None and not force:
            return
        getattr(super(), f"make_{name}")(force)
        devices = jax_devices()
        if devices is not None:
            from polynet_keras.engine import on_jax

            of_all = kind == "train" and devices.processes > 1
            function = on_jax.divided(self, devices, getattr(self, name))
            setattr(self, name, on_jax.training_step_of_all(self, devices) if of_all else function)

    def compiled_function(self, function: Callable) -> Callable:
        """Makes a graph of a step: a hook for subclasses.

        Args:
            function: takes one nest of tensors and distributed values, outside of the strategy's scope.

        Returns:
            A callable that takes the nest and its specification.
        """
        import tensorflow as tf

        traced = function if self.run_eagerly else tf.function(function, reduce_retracing=True, autograph=False)
        return lambda data, spec: traced(data)

    @property
    def _tensorflow_strategy(self):
        return self._distribute_strategy if keras.backend.backend() == "tensorflow" else None

    def _maybe_symbolic_build(self, iterator=None, data_batch=None):
        if self.training_session is not None and iterator is not None:
            self.training_session.begin(iterator)
        # Keras's method reads a batch and fails to reduce it. Building needs only shapes.
        if self._tensorflow_strategy is None:
            return super()._maybe_symbolic_build(iterator=iterator, data_batch=data_batch)
        from polynet_keras.engine.building import build

        build(self, iterator, data_batch)

    def _symbolic_build(self, iterator=None, data_batch=None):
        if keras.backend.backend() == "jax" and iterator is not None:
            if jax_devices() is not None:
                # As in `predict`; the step divides the batch.
                keras_internals.leave_in_memory(iterator)
            if self.training_session is not None:
                self.training_session.begin(iterator)
            from polynet_keras.engine.on_jax import symbols_of

            # Keras's method reads a batch, and the dataset draws one more order of its examples.
            data_batch = symbols_of(iterator)
        super()._symbolic_build(iterator=iterator, data_batch=data_batch)

    def jax_state_sync(self):
        # Keras calls it on JAX, where variables have no values in the course of an epoch.
        from polynet_keras.engine.on_jax import own

        keras_internals.change_jax_state(self, own)
        super().jax_state_sync()

    def _get_metrics_result_or_logs(self, logs):
        devices = jax_devices() if self._evaluates else None
        if devices is None or devices.processes == 1:
            return super()._get_metrics_result_or_logs(logs)
        from polynet_keras.engine.on_jax import add_metrics

        add_metrics(self)
        return self.get_metrics_result()  # a process without a batch has no logs

    def _on_this_worker(self, method: str, args: tuple, kwargs: dict) -> dict:
        """Returns the arguments of one of Keras's methods for this worker's call."""
        bound = inspect.signature(getattr(keras.Model, method)).bind(self, *args, **kwargs)
        arguments = {**bound.arguments, **bound.arguments.get("kwargs", {})}
        arguments.pop("self", None)
        arguments.pop("kwargs", None)
        if self._tensorflow_strategy is None:
            return arguments
        from polynet_keras.cluster.workers import is_chief
        from polynet_keras.engine.building import check_call

        check_call(self, method, arguments)
        if not is_chief(self._tensorflow_strategy):
            arguments["verbose"] = 0
            callbacks = arguments.get("callbacks")
            if isinstance(callbacks, keras.callbacks.Callback):
                callbacks = [callbacks]
            if callbacks and not isinstance(callbacks, keras.callbacks.CallbackList):
                arguments["callbacks"] = [one for one in callbacks if not isinstance(one, WRITERS)]
        return arguments


@keras.saving.register_keras_serializable(package="polynet_keras")
class DistributedModel(DistributedTraining, keras.Model):
    """A functional `keras.Model` for many workers: make, save and load it like `keras.Model(inputs, outputs)`.

    Examples:
        >>> net = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
        >>> model = DistributedModel(net.inputs, net.outputs)
        >>> model.compile("sgd", "mse")
        >>> model.fit(np.zeros((4, 2)), np.zeros((4, 1)), verbose=0).history
        {'loss': [0.0]}
    """
