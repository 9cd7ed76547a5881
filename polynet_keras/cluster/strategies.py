"""TensorFlow's distribution strategies, as a cluster and a few settings ask for them."""

import contextlib
from collections.abc import Mapping

import keras
import tensorflow as tf
from absl import logging

from polynet_keras.basics.checks import check_choice
from polynet_keras.basics.tuning import untuned
from polynet_keras.cluster import internals
from polynet_keras.cluster.cluster import Cluster, split_address
from polynet_keras.cluster.communication import STRATEGIES, Communication
from polynet_keras.cluster.connecting import limited_connecting
from polynet_keras.cluster.loopback import keep_to_loopback
from polynet_keras.cluster.patience import Patience, waiting
from polynet_keras.cluster.rendezvous import code_fingerprint, meet
from polynet_keras.cluster.tpu import tpu_strategy

CONNECT_SECONDS = 120
"""For TensorFlow's servers to find each other, after the workers have met."""


def open_strategy(
    name: str = "auto",
    cluster: Cluster | None = None,
    communication: Communication | None = None,
    tpu: str | None = None,
    facts: Mapping[str, str] | None = None,
) -> tf.distribute.Strategy | None:
    """The strategy to build a model under.

    Call it before anything else of TensorFlow's runs: a strategy of several workers starts a server in this process.
    The workers meet first, and none goes on unless all are there and do the same thing (`cluster.rendezvous`).

    Args:
        name: `"multi_worker"`; `"mirrored"`, over all local GPUs, or the CPU; `"tpu"`; `"none"`; or `"auto"`:
            multi-worker where there is a cluster, else mirrored where there are several GPUs, else none.
        cluster: by default `Cluster.from_environment()`.
        communication: between workers.
        tpu: name or address of the TPU; by default the one of the environment.
        facts: by name, what all workers must have alike, beside this package's code, the versions of TensorFlow and
            Keras and how tensors are summed: what a recipe says, say.

    Returns:
        The strategy, or `None` for one device.

    Raises:
        ValueError: an unknown name, an environment that is no cluster, workers that are not there or not alike, or a
            TPU that is not there.
    """
    check_choice("strategy", name, STRATEGIES)
    if tpu is not None and name != "tpu":
        raise ValueError(f"tpu={tpu!r} is for strategy='tpu', and strategy={name!r}")
    cluster = Cluster.from_environment() if cluster is None else cluster
    if name in ("mirrored", "tpu", "none") and cluster.is_distributed:
        raise ValueError(f"strategy={name!r} is for one process, and {cluster.source} has {cluster.count} workers")
    if name == "tpu":
        return tpu_strategy(tpu)
    if cluster.is_distributed:
        communication = communication or Communication()
        _check_nothing_ran()
        alike = {
            "polynet_keras": code_fingerprint(),
            "TensorFlow": tf.__version__,
            "Keras": keras.__version__,
            "communication": communication.implementation,
            "bytes_per_pack": str(communication.bytes_per_pack),
        }
        meet(cluster, {**alike, **(facts or {})}, communication.start_timeout)
        return _multi_worker_strategy(cluster, communication)
    if name == "multi_worker":
        internals.change_device_datasets(untuned)
        options = communication_options(communication or Communication())
        return tf.distribute.MultiWorkerMirroredStrategy(communication_options=options)
    if name == "mirrored" or (name == "auto" and len(tf.config.list_physical_devices("GPU")) > 1):
        internals.change_device_datasets(untuned)
        return tf.distribute.MirroredStrategy()
    return None


def _multi_worker_strategy(cluster: Cluster, communication: Communication) -> tf.distribute.Strategy:
    internals.limit_connecting(cluster.count, CONNECT_SECONDS)
    resolver = tf.distribute.cluster_resolver.SimpleClusterResolver(
        tf.train.ClusterSpec({"worker": list(cluster.workers)}),
        task_type="worker",
        task_id=cluster.index,
        num_accelerators={"GPU": len(tf.config.list_physical_devices("GPU"))},
        rpc_layer="grpc",
    )
    with limited_connecting(cluster, CONNECT_SECONDS + 15):  # TensorFlow's own limit, where it holds, says more
        strategy = MultiWorkerStrategy(resolver, communication_options(communication))
    if cluster.is_loopback:
        port = split_address(cluster.workers[cluster.index])[1]
        if not keep_to_loopback(port) and cluster.is_chief:
            logging.warning(
                "other machines reach TensorFlow's servers of this job, which run anybody's operations; Linux 5.7 or "
                "later would close them (docs/distribution.md, Security of a cluster)"
            )
    strategy.patience = Patience(cluster, communication.timeout_seconds)
    return strategy


def communication_options(communication: Communication) -> tf.distribute.experimental.CommunicationOptions:
    """As TensorFlow takes them, all but the timeout: `cluster.patience` has it, and says why."""
    implementation = communication.implementation
    if implementation == "auto":
        # TensorFlow's own choice on CPUs takes up to twice the time of its ring.
        implementation = "auto" if tf.config.list_physical_devices("GPU") else "ring"
    return tf.distribute.experimental.CommunicationOptions(
        bytes_per_pack=communication.bytes_per_pack,
        implementation=tf.distribute.experimental.CommunicationImplementation[implementation.upper()],
    )


def _check_nothing_ran() -> None:
    """Before the workers meet: one that TensorFlow then lets start no server would leave the others waiting for it."""
    if internals.something_ran():
        raise ValueError(
            "a strategy of several workers comes first: something of TensorFlow's ran in this process before "
            "open_strategy, such as the making of a layer or a tensor"
        )


class MultiWorkerStrategy(tf.distribute.MultiWorkerMirroredStrategy):
    """TensorFlow's, with limited waits and with datasets that are not tuned, whose iterators end at once.

    What sums outside of steps waits as they do: `reduce`, by which a dataset's end and the values of metrics are found
    too, and a new variable, which takes the chief's value.

    Attributes:
        patience: limits the waits; None before the workers are connected.
    """

    patience: Patience | None = None

    def __init__(self, cluster_resolver=None, communication_options=None):
        super().__init__(cluster_resolver, communication_options)
        internals.change_device_datasets(untuned)
        internals.make_variables_within(self, lambda: waiting(self))

    def reduce(self, reduce_op, value, axis):
        with waiting(self) if tf.executing_eagerly() else contextlib.nullcontext():
            return super().reduce(reduce_op, value, axis)

    def experimental_distribute_dataset(self, dataset, options=None):
        return super().experimental_distribute_dataset(untuned(dataset), options)

    def distribute_datasets_from_function(self, dataset_fn, options=None):
        return super().distribute_datasets_from_function(lambda context: untuned(dataset_fn(context)), options)
