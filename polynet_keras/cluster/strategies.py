"""Opens TensorFlow's distribution strategies from a cluster and a few settings."""

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
"""The time for TensorFlow's servers to find each other, after the workers have met."""


def open_strategy(
    name: str = "auto",
    cluster: Cluster | None = None,
    communication: Communication | None = None,
    tpu: str | None = None,
    facts: Mapping[str, str] | None = None,
) -> tf.distribute.Strategy | None:
    """Returns the strategy to build a model under.

    Call it before any other operation of TensorFlow: a strategy of several workers starts a server in this process. The
    workers meet first, and none continues unless all are present and do the same thing (`cluster.rendezvous`).

    Args:
        name: `"multi_worker"`; `"mirrored"`, over all local GPUs, or the CPU; `"tpu"`; `"none"`; or `"auto"`:
            multi-worker if there is a cluster, else mirrored if there are several GPUs, else none.
        cluster: by default `Cluster.from_environment()`.
        communication: the communication between workers.
        tpu: name or address of the TPU; by default the one of the environment.
        facts: values by name that must be equal on all workers, for example the values of a recipe. This package's
            code, the versions of TensorFlow and Keras and the way to sum tensors are always compared.

    Returns:
        The strategy, or `None` for one device.

    Raises:
        ValueError: the name is unknown, the environment describes no cluster, workers are missing or differ, or the TPU
            is missing.

    Examples:
        >>> strategy = open_strategy("mirrored")
        >>> with strategy.scope():
        ...     model = InceptionResNet((1, 1, 1), width=0.1)
        >>> type(strategy).__name__
        'MirroredStrategy'
    """
    check_choice("strategy", name, STRATEGIES)
    if tpu is not None and name != "tpu":
        raise ValueError(f"tpu={tpu!r} is for strategy='tpu', but strategy={name!r}")
    cluster = Cluster.from_environment() if cluster is None else cluster
    if name in ("mirrored", "tpu", "none") and cluster.is_distributed:
        raise ValueError(f"strategy={name!r} is for one process, but {cluster.source} has {cluster.count} workers")
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
    gpus = tf.config.list_physical_devices("GPU")
    own = [gpus[index] for index in cluster.own_gpus(len(gpus))]
    if len(own) < len(gpus):
        tf.config.set_visible_devices(own, "GPU")
    resolver = tf.distribute.cluster_resolver.SimpleClusterResolver(
        tf.train.ClusterSpec({"worker": list(cluster.workers)}),
        task_type="worker",
        task_id=cluster.index,
        num_accelerators={"GPU": len(own)},
        rpc_layer="grpc",
    )
    with limited_connecting(cluster, CONNECT_SECONDS + 15):  # TensorFlow's own limit, if it works, says more
        strategy = MultiWorkerStrategy(resolver, communication_options(communication))
    if cluster.is_loopback:
        port = split_address(cluster.workers[cluster.index])[1]
        if not keep_to_loopback(port) and cluster.is_chief:
            logging.warning(
                "other machines can reach TensorFlow's servers of this job, which run anybody's operations; Linux 5.7 "
                "or later would close them (docs/distribution.md, Security of a cluster)"
            )
    strategy.patience = Patience(cluster, communication.timeout_seconds)
    return strategy


def communication_options(communication: Communication) -> tf.distribute.experimental.CommunicationOptions:
    """Returns TensorFlow's options, without the timeout: `cluster.patience` applies it, and says why."""
    implementation = communication.implementation
    if implementation == "auto":
        # TensorFlow's own choice on CPUs takes up to twice the time of its ring.
        implementation = "auto" if tf.config.list_physical_devices("GPU") else "ring"
    return tf.distribute.experimental.CommunicationOptions(
        bytes_per_pack=communication.bytes_per_pack,
        implementation=tf.distribute.experimental.CommunicationImplementation[implementation.upper()],
    )


def _check_nothing_ran() -> None:
    """Checks before the workers meet: a worker that cannot start a server would keep the others waiting."""
    if internals.something_ran():
        raise ValueError(
            "open a strategy of several workers first: TensorFlow has already run in this process before "
            "open_strategy, for example to make a layer or a tensor"
        )


class MultiWorkerStrategy(tf.distribute.MultiWorkerMirroredStrategy):
    """TensorFlow's strategy with limited waits, and with untuned datasets, whose iterators end at once.

    Sums outside of steps have limited waits too: `reduce`, which also finds the end of a dataset and the values of
    metrics, and a new variable, which takes the chief's value.

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
