"""On TensorFlow: makes a graph of a step of `fit`, `evaluate` or `predict` that starts soon and stays small.

Keras 3 needs two minutes until the first training step of G5 is done. The differences here, and the reasons:

* The optimizer's and the metrics' variables are made before the step is traced. If they are made during the trace,
  everything is traced a second time. (The metrics' Python code runs once more to make them.)
* The step is one flat function, called batch by batch, without the iterator and the functions that Keras nests.
* TensorFlow's graph optimizer runs all its passes over every graph, twice each. Here only passes that pay for
  themselves (`PASSES`) run, once. They are set in the call of this one function, and not for the process. If you set
  passes with `tf.config.optimizer.set_experimental_options`, TensorFlow runs those instead.
* The batch size stays open if the dataset leaves it open, or if there is no dataset, so that a smaller last batch
  needs no new function. If the batch or the images get another size, the function is replaced by one that is open in
  the axis that differs: a third size needs no new function.
"""

import threading
from collections.abc import Callable, Iterator
from typing import Any

import keras
import tensorflow as tf

from polynet_keras.engine.batches import open_batch, without_optionals
from polynet_keras.engine.internals import call_options, called_with, configuration_of_calls

NO_OPTIONS = {"disable_model_pruning": False, "disable_meta_optimizer": False}
"""The options of TensorFlow's graph optimizer if none have been set."""
PASSES = ("remapping",)
"""The passes of TensorFlow's graph optimizer for a step: this one fuses ReLU into the normalization before it."""


class CompiledStep:
    """A training or test step, as Keras calls it: with an iterator, returning the logs of its next batch.

    Args:
        model: the model whose optimizer and metrics the step uses.
        step: a function of a batch, `model.train_step` or `model.test_step`.
        trains: whether the step uses the optimizer.
    """

    def __init__(self, model: keras.Model, step: Callable[[Any], Any], trains: bool = False):
        self._model = model
        self._trains = trains
        self._metrics_are_made = False
        self._function = FlatFunction(model, step, before_trace=self._make_variables)

    def __call__(self, iterator: Iterator):
        # At the end of the data, `next` raises the StopIteration that Keras expects.
        if isinstance(iterator, tf.data.Iterator):
            return self._function(next(iterator), iterator.element_spec)
        data = _as_tensors(next(iterator))
        return self._function(data, open_batch(data))

    def _make_variables(self, spec) -> None:
        model = self._model
        # A user's own step may train other variables, and measure other data: they are made in its trace.
        if not _is_keras_own_step(model):
            return
        if self._trains and not model.optimizer.built:  # a second build would reset an optimizer that scales the loss
            model.optimizer.build(model.trainable_variables)
        if self._metrics_are_made:
            return

        # Metrics make their variables when they are first computed: here in a graph that never runs, with the shapes
        # of the outputs only.
        def compute(data, y_pred):
            x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(without_optionals(data))
            return model.compute_metrics(x, y, y_pred, sample_weight=sample_weight)

        outputs = keras.tree.map_structure(lambda y: tf.TensorSpec((None, *y.shape[1:]), y.dtype), model.output)
        tf.function(compute, autograph=False).get_concrete_function(spec, outputs)
        self._metrics_are_made = True


class CompiledPrediction:
    """A prediction step, as Keras calls it: with a list of one batch, returning the outputs."""

    def __init__(self, model: keras.Model, step: Callable[[Any], Any]):
        self._function = FlatFunction(model, step)

    def __call__(self, batches: list):
        (batch,) = batches
        data = _as_tensors(batch)
        return self._function(data, open_batch(data))


class FlatFunction:
    """`step`, compiled once for each structure and dtype of the data, with axes that are open or have one size."""

    def __init__(
        self, model: keras.Model, step: Callable[[Any], Any], before_trace: Callable[[Any], None] | None = None
    ):
        def named_step(data):
            return step(without_optionals(data))

        named_step.__name__ = getattr(step, "__name__", "step")  # errors at run time and profiles show it
        self._step = named_step
        self._before_trace = before_trace
        self._input_shapes = [tensor.shape for tensor in model.inputs]
        self._compiled: list[tuple[Any, Callable[[Any], Any]]] = []
        self._lock = threading.RLock()

    def __call__(self, data, spec):
        if tf.config.functions_run_eagerly():  # the user debugs
            return self._step(data)
        with self._lock:
            function = self._function_of(spec)
        return function(data)

    def _function_of(self, spec) -> Callable[[Any], Any]:
        superseded = None
        for number, (known, function) in enumerate(self._compiled):
            try:
                common = keras.tree.map_structure(self._common, known, spec)
            except (ValueError, TypeError):  # the structures differ, or no specification covers both
                continue
            if common == known:
                return function
            superseded, spec = number, common
            break
        if self._before_trace is not None:
            self._before_trace(spec)
        function = tf.function(self._step, autograph=False).get_concrete_function(spec)
        if not _passes_are_chosen():
            function = _WithPasses(function)
        if superseded is not None:
            del self._compiled[superseded]
        self._compiled.append((spec, function))
        return function

    def _common(self, known, spec):
        """Returns a specification that covers both; raises a `ValueError` if there is none."""
        if known == spec:
            return known
        if not isinstance(known, tf.TensorSpec) or not isinstance(spec, tf.TensorSpec) or known.dtype != spec.dtype:
            raise ValueError(f"no specification covers {known} and {spec}")
        shape = []
        for axis, (a, b) in enumerate(zip(known.shape, spec.shape, strict=True)):
            if a != b and not self._may_open(axis, known.shape.rank):
                raise ValueError(f"the model has one fixed size in axis {axis}")
            shape.append(a if a == b else None)
        return tf.TensorSpec(shape, known.dtype)

    def _may_open(self, axis: int, rank: int) -> bool:
        """Whether an axis may be open. If the model's input fixes its size, it stays fixed: Keras checks the input."""
        of_rank = [shape for shape in self._input_shapes if len(shape) == rank]
        return not of_rank or any(shape[axis] is None for shape in of_rank)


class _WithPasses:
    """A traced function that TensorFlow optimizes with `PASSES` only."""

    def __init__(self, function: Callable[[Any], Any]):
        self._function = function
        self._options = call_options(_config())

    def __call__(self, data):
        # The passes of a function are an attribute of its call, which TensorFlow stores by thread, without a public
        # name. The public `StatefulPartitionedCall` takes this attribute, but is no substitute: called eagerly, it
        # runs without the pool of inter-op threads (steps take 1.1 times as long), and called in its own function, it
        # is optimized twice (the first step comes 6 s later).
        with called_with(self._options):
            return self._function(data)


def _passes_are_chosen() -> bool:
    """Whether the user set graph passes for the process, or there is a GPU: `PASSES` were not chosen for GPUs."""
    if tf.config.list_physical_devices("GPU"):
        return True
    return tf.config.optimizer.get_experimental_options() != NO_OPTIONS


def _config() -> tf.compat.v1.ConfigProto:
    """Returns the configuration with the passes for one function."""
    config = configuration_of_calls()
    rewrite = config.graph_options.rewrite_options
    for field in rewrite.DESCRIPTOR.fields:
        if field.enum_type is not None and field.enum_type.name == "Toggle" and field.name not in PASSES:
            setattr(rewrite, field.name, rewrite.OFF)
    rewrite.memory_optimization = rewrite.NO_MEM_OPT
    rewrite.meta_optimizer_iterations = rewrite.ONE
    return config


def _is_keras_own_step(model: keras.Model) -> bool:
    """Whether the data are (x, y, sample_weight) and the metrics see the model's output, as in Keras's own steps."""
    steps = ("train_step", "test_step", "compute_metrics")
    return all(getattr(getattr(model, step), "__func__", None) is getattr(keras.Model, step) for step in steps)


def _as_tensors(data):
    def as_tensor(x):
        return x if x is None or tf.is_tensor(x) else tf.convert_to_tensor(x)

    return keras.tree.map_structure(as_tensor, data)
