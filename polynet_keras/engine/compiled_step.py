"""On TensorFlow: how a step of `fit`, `evaluate` or `predict` becomes a graph, so that it starts soon and stays small.

Keras 3 needs two minutes before the first training step of G5 is done. What is different here, and why:

* The optimizer's and the metrics' variables are made before the step is traced. Made during the trace, they have
  everything traced a second time. (The metrics' Python code runs once more for it.)
* The step is one flat function, called batch by batch, without the iterator and the functions that Keras nests.
* Of the passes that TensorFlow's graph optimizer runs, twice each, over every graph, those run once that pay for
  themselves here (`PASSES`). They are set for this one function, in its call, and not for the process; whoever sets
  passes with `tf.config.optimizer.set_experimental_options` gets those instead.
* The batch size is left open where the dataset leaves it open, or where there is none, so that a smaller last batch
  is no new function. Other sizes, of the batch or of the images, open the axis in which they differ: the third
  size is no new function either, and the first one's is dropped.
"""

import threading
from collections.abc import Callable, Iterator
from typing import Any

import keras
import tensorflow as tf

from polynet_keras.engine.batches import open_batch, without_optionals
from polynet_keras.engine.internals import call_options, called_with, configuration_of_calls

NO_OPTIONS = {"disable_model_pruning": False, "disable_meta_optimizer": False}
"""Of TensorFlow's graph optimizer, where nobody has set any."""
PASSES = ("remapping",)
"""What TensorFlow's graph optimizer does to a step: ReLU becomes part of the normalization before it."""


class CompiledStep:
    """A training or test step, as Keras calls it: with an iterator, returning the logs of its next batch.

    Args:
        model: whose optimizer and metrics the step uses.
        step: of a batch, `model.train_step` or `model.test_step`.
        trains: whether the step uses the optimizer.
    """

    def __init__(self, model: keras.Model, step: Callable[[Any], Any], trains: bool = False):
        self._model = model
        self._trains = trains
        self._metrics_are_made = False
        self._function = FlatFunction(model, step, before_trace=self._make_variables)

    def __call__(self, iterator: Iterator):
        # Where the data is over, `next` raises the StopIteration that Keras waits for.
        if isinstance(iterator, tf.data.Iterator):
            return self._function(next(iterator), iterator.element_spec)
        data = _as_tensors(next(iterator))
        return self._function(data, open_batch(data))

    def _make_variables(self, spec) -> None:
        model = self._model
        # A step of somebody's own may train other variables, and measure other data: they are made in its trace.
        if not _is_keras_own_step(model):
            return
        if self._trains and not model.optimizer.built:  # one that scales the loss would start anew
            model.optimizer.build(model.trainable_variables)
        if self._metrics_are_made:
            return

        # Metrics make their variables when they are first computed: here in a graph that never runs, of which they
        # see the outputs' shapes only.
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
    """`step`, compiled once for each structure and dtypes of data, with axes that are open or of one size."""

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
        if tf.config.functions_run_eagerly():  # somebody debugs
            return self._step(data)
        with self._lock:
            function = self._function_of(spec)
        return function(data)

    def _function_of(self, spec) -> Callable[[Any], Any]:
        superseded = None
        for number, (known, function) in enumerate(self._compiled):
            try:
                common = keras.tree.map_structure(self._common, known, spec)
            except (ValueError, TypeError):  # another structure, or no specification holds both
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
        """The specification of tensors of both; a `ValueError` if there is none."""
        if known == spec:
            return known
        if not isinstance(known, tf.TensorSpec) or not isinstance(spec, tf.TensorSpec) or known.dtype != spec.dtype:
            raise ValueError(f"no specification holds {known} and {spec}")
        shape = []
        for axis, (a, b) in enumerate(zip(known.shape, spec.shape, strict=True)):
            if a != b and not self._may_open(axis, known.shape.rank):
                raise ValueError(f"the model is of one size in axis {axis}")
            shape.append(a if a == b else None)
        return tf.TensorSpec(shape, known.dtype)

    def _may_open(self, axis: int, rank: int) -> bool:
        """An axis that the model's input fixes stays of one size: its check of the input sees no open one."""
        of_rank = [shape for shape in self._input_shapes if len(shape) == rank]
        return not of_rank or any(shape[axis] is None for shape in of_rank)


class _WithPasses:
    """A traced function that TensorFlow optimizes with `PASSES` only."""

    def __init__(self, function: Callable[[Any], Any]):
        self._function = function
        self._options = call_options(_config())

    def __call__(self, data):
        # With which passes a function is optimized is an attribute of its call, which TensorFlow keeps by thread. It
        # has no public name, and the public `StatefulPartitionedCall`, which takes it, is no way round: called eagerly
        # it runs without the pool of inter-op threads (steps take 1.1 times as long), and called in a function of its
        # own it is optimized twice (the first step comes 6 s later).
        with called_with(self._options):
            return self._function(data)


def _passes_are_chosen() -> bool:
    """Whether somebody set graph passes for the process, or there is a GPU, for which `PASSES` were not chosen."""
    if tf.config.list_physical_devices("GPU"):
        return True
    return tf.config.optimizer.get_experimental_options() != NO_OPTIONS


def _config() -> tf.compat.v1.ConfigProto:
    """With which passes TensorFlow optimizes the graph of one function."""
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
