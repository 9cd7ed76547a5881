"""All that `engine` and the rooms above use of TensorFlow without a public name, and what happens if a name goes.

Keras's names are in `basics.keras_internals`, what `cluster` uses of TensorFlow in `cluster.internals`.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import tensorflow as tf
from tensorflow.python.distribute.values import PerReplicaSpec
from tensorflow.python.eager import context

# If one of the two modules goes, the import of this one fails, and with it every fit on TensorFlow.


def global_seed() -> int | None:
    """What `tf.random.set_seed` has set. Without the name: AttributeError where arrays are shuffled."""
    return context.global_seed()


# How functions are called.


def configuration_of_calls() -> tf.compat.v1.ConfigProto:
    """How TensorFlow optimizes the functions that this thread calls; a copy. Without the names: AttributeError."""
    return tf.compat.v1.ConfigProto.FromString(context.context().function_call_options.config_proto_serialized)


def call_options(configuration: tf.compat.v1.ConfigProto) -> Any:
    """For `called_with`: another configuration, and the executor as it is. Without the names: AttributeError."""
    return context.FunctionCallOptions(context.context().function_call_options.executor_type, configuration)


@contextmanager
def called_with(options: Any) -> Iterator[None]:
    """Has this thread call functions with such options. Without the name: AttributeError."""
    current = context.context()
    before = current.function_call_options
    current.function_call_options = options
    try:
        yield
    finally:
        current.function_call_options = before


# Strategies.


def one_replica(spec: Any) -> Any:
    """Of a specification of distributed values one replica's, any other as it is. Without the name: AttributeError."""
    return spec._value_specs[0] if isinstance(spec, PerReplicaSpec) else spec


def call_once(function: Callable[[tf.distribute.Strategy], None], strategy: tf.distribute.Strategy) -> None:
    """Calls a function for all replicas at once, from any context. Without the name: AttributeError."""
    tf.__internal__.distribute.interim.maybe_merge_call(function, strategy)


# The parts of tf.data's datasets. Where the name of a class goes: silence; a resumed training has another order.


def parts_of(dataset: tf.data.Dataset) -> list[tf.data.Dataset]:
    """The datasets that one is made of. Without the name: AttributeError in every fit with Checkpoints."""
    return dataset._inputs()


def graphs_of(dataset: tf.data.Dataset) -> list[tf.Graph]:
    """Of the functions of one part, of `map` say. Without the name: AttributeError in every fit with Checkpoints."""
    return [wrapper.function.graph for wrapper in dataset._functions()]


def seeds_of(dataset: tf.data.Dataset) -> list[int] | None:
    """The two seeds of a part that draws, None of another one. Without the names: AttributeError for `shuffle`."""
    if type(dataset).__name__ != "_ShuffleDataset" and not hasattr(dataset, "_seed2"):
        return None
    return [int(dataset._seed), int(dataset._seed2)]


def repeats_of(dataset: tf.data.Dataset) -> int | None:
    """How often a part repeats, -1 for ever; None if it does not. Without the name: AttributeError for `repeat`."""
    return int(dataset._count) if type(dataset).__name__ == "_RepeatDataset" else None


def is_cache(dataset: tf.data.Dataset) -> bool:
    """Whether a part keeps what comes before it."""
    return type(dataset).__name__ == "CacheDataset"


def is_concatenation(dataset: tf.data.Dataset) -> bool:
    """Whether a part is one dataset after another."""
    return type(dataset).__name__ == "_ConcatenateDataset"
