"""All private names of TensorFlow that `engine` and the rooms above use, and the consequence if a name is removed.

Keras's private names are in `basics.keras_internals`, those of TensorFlow that `cluster` uses in `cluster.internals`.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import tensorflow as tf
from tensorflow.python.distribute.values import PerReplicaSpec
from tensorflow.python.eager import context

# Without one of these two modules the import of this one fails, and with it every fit on TensorFlow.


def global_seed() -> int | None:
    """Returns the seed of `tf.random.set_seed`. Without the name: AttributeError when arrays are shuffled."""
    return context.global_seed()


# How functions are called.


def configuration_of_calls() -> tf.compat.v1.ConfigProto:
    """Returns a copy of this thread's settings for optimizing functions. Without the names: AttributeError."""
    return tf.compat.v1.ConfigProto.FromString(context.context().function_call_options.config_proto_serialized)


def call_options(configuration: tf.compat.v1.ConfigProto) -> Any:
    """Returns options for `called_with`: a new configuration, the same executor. Without the names: AttributeError."""
    return context.FunctionCallOptions(context.context().function_call_options.executor_type, configuration)


@contextmanager
def called_with(options: Any) -> Iterator[None]:
    """Makes this thread call functions with these options. Without the name: AttributeError."""
    current = context.context()
    before = current.function_call_options
    current.function_call_options = options
    try:
        yield
    finally:
        current.function_call_options = before


# Strategies.


def one_replica(spec: Any) -> Any:
    """Returns one replica's specification of distributed values, and any other one unchanged.

    Without the name: AttributeError.
    """
    return spec._value_specs[0] if isinstance(spec, PerReplicaSpec) else spec


def call_once(function: Callable[[tf.distribute.Strategy], None], strategy: tf.distribute.Strategy) -> None:
    """Calls a function for all replicas at once, from any context. Without the name: AttributeError."""
    tf.__internal__.distribute.interim.maybe_merge_call(function, strategy)


# The parts of tf.data's datasets. Without the name of a class: no error; a resumed training has another order.


def parts_of(dataset: tf.data.Dataset) -> list[tf.data.Dataset]:
    """Returns the parts of a dataset. Without the name: AttributeError in every fit with Checkpoints."""
    return dataset._inputs()


def graphs_of(dataset: tf.data.Dataset) -> list[tf.Graph]:
    """Returns the graphs of a part's functions, as in `map`. Without the name: AttributeError with Checkpoints."""
    return [wrapper.function.graph for wrapper in dataset._functions()]


def seeds_of(dataset: tf.data.Dataset) -> list[int] | None:
    """Returns the two seeds of a part that draws, else None. Without the names: AttributeError for `shuffle`."""
    if type(dataset).__name__ != "_ShuffleDataset" and not hasattr(dataset, "_seed2"):
        return None
    return [int(dataset._seed), int(dataset._seed2)]


def repeats_of(dataset: tf.data.Dataset) -> int | None:
    """Returns how often a part repeats, -1 for ever, else None. Without the name: AttributeError for `repeat`."""
    return int(dataset._count) if type(dataset).__name__ == "_RepeatDataset" else None


def is_cache(dataset: tf.data.Dataset) -> bool:
    """Whether a part caches its input."""
    return type(dataset).__name__ == "CacheDataset"


def is_concatenation(dataset: tf.data.Dataset) -> bool:
    """Whether a part concatenates two datasets."""
    return type(dataset).__name__ == "_ConcatenateDataset"
