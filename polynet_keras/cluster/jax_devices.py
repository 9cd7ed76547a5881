"""The devices and processes that train together on Keras's JAX backend."""

import inspect
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import keras
from absl import logging

from polynet_keras.cluster.cluster import Cluster
from polynet_keras.cluster.communication import Communication
from polynet_keras.cluster.gpus import visible_gpus
from polynet_keras.cluster.rendezvous import code_fingerprint, meet

CONNECT_SECONDS = 120
"""The time for JAX to connect the workers, after they have met."""
HEARTBEAT_SECONDS = 30
"""JAX ends all processes if one of them gives no sign of life for this time."""
SHUTDOWN_SECONDS = 10
"""The time that a process which fails waits for the others before it exits."""


class JaxDevices(keras.distribution.DataParallel):
    """All devices of the processes that train together, as TensorFlow's strategies are on the other backend.

    It is Keras's distribution over the devices of this process, each of which has all variables: Keras builds, saves,
    evaluates and restores a model as in a process alone. Only a training step is of all processes (`engine.on_jax`).

    Use it inside `scope()`, also for `fit`. JAX must know of all processes before (`jax.distributed`).

    Attributes:
        processes: the number of processes.
        process: the index of this process.
        num_replicas_in_sync: the number of devices of all processes; the name is TensorFlow's.
        everywhere: Keras's distribution over them.
    """

    def __init__(self):
        import jax

        super().__init__(devices=jax.local_devices(), auto_shard_dataset=False)
        self.processes = jax.process_count()
        self.process = jax.process_index()
        self.num_replicas_in_sync = jax.device_count()
        self.everywhere = keras.distribution.DataParallel(devices=jax.devices(), auto_shard_dataset=False)

    def leave(self) -> None:
        """Disconnects the processes, when all are done: none takes another one's exit for a failure."""
        import jax

        if self.processes > 1:
            jax.distributed.shutdown()


def open_devices(
    name: str = "auto",
    cluster: Cluster | None = None,
    communication: Communication | None = None,
    facts: Mapping[str, str] | None = None,
) -> JaxDevices | None:
    """Returns the devices for a training on JAX, as `open_strategy` returns a strategy for TensorFlow.

    Call it before any other operation of JAX, if there are several workers.

    Args:
        name: `"auto"`: those of all workers, each with all that it sees, or its share of the GPUs that Slurm shows to
            all tasks of a machine; or `"none"`: one device.
        cluster: by default `Cluster.from_environment()`.
        communication: the limit of the wait for the workers' start.
        facts: values by name that must be equal on all workers.

    Returns:
        The devices, or None for one.

    Raises:
        ValueError: workers are missing or differ, `"none"` has several, or they cannot share the GPUs equally.
    """
    import jax

    cluster = Cluster.from_environment() if cluster is None else cluster
    if not cluster.is_distributed:
        return JaxDevices() if name == "auto" and jax.local_device_count() > 1 else None
    if name == "none":
        raise ValueError(f"strategy={name!r} is for one process, but {cluster.source} has {cluster.count} workers")
    chief = cluster.workers[0]
    settings: dict[str, Any] = {
        "coordinator_address": chief,
        "num_processes": cluster.count,
        "process_id": cluster.index,
        "local_device_ids": _own_gpus(cluster),
        "cluster_detection_method": "deactivate",  # under Slurm, JAX would find the processes once more
        "initialization_timeout": CONNECT_SECONDS,
        "heartbeat_timeout_seconds": HEARTBEAT_SECONDS,
        "shutdown_timeout_seconds": SHUTDOWN_SECONDS,
        # By default the chief listens on all addresses.
        "coordinator_bind_address": chief if cluster.is_loopback else None,
    }
    if not settings.keys() <= inspect.signature(jax.distributed.initialize).parameters.keys():
        raise ValueError(f"several workers need a newer JAX than {jax.__version__}: pip install --upgrade jax")
    limit = (communication or Communication()).start_timeout
    alike = {"polynet_keras": code_fingerprint(), "JAX": jax.__version__, "Keras": keras.__version__}
    meet(cluster, {**alike, **(facts or {})}, limit)
    # JAX's own handler of SIGTERM would keep a process running that is to stop.
    jax.config.update("jax_enable_preemption_service", False)
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.distributed.initialize(**settings)
    return JaxDevices()


def _own_gpus(cluster: Cluster) -> list[int] | None:
    """Returns the indices of this process's GPUs among those that it sees; None if all of its devices are its own.

    JAX must know them before it opens a device, so JAX cannot count them.
    """
    if cluster.source != "Slurm" or len(cluster.on_this_machine) == 1 or "JAX_LOCAL_DEVICE_IDS" in os.environ:
        return None  # without a question to the driver, which can take long
    count = len(visible_gpus())
    if not count and os.environ.get("SLURM_GPUS_ON_NODE", "0") != "0":
        logging.warning(
            "nvidia-smi names no GPU, so each of the %d tasks on this machine opens all that JAX finds: bind a GPU to "
            "each task with --gpus-per-task=1, or set JAX_LOCAL_DEVICE_IDS",
            len(cluster.on_this_machine),
        )
    own = cluster.own_gpus(count)
    return list(own) if len(own) < count else None


def jax_devices() -> JaxDevices | None:
    """Returns the devices in whose scope this is called, or None."""
    distribution = keras.distribution.distribution() if keras.backend.backend() == "jax" else None
    return distribution if isinstance(distribution, JaxDevices) else None


@contextmanager
def one_device() -> Iterator[None]:
    """On JAX, makes Keras forget the scope of `JaxDevices` inside the block; elsewhere it does nothing."""
    devices = jax_devices()
    if devices is None:
        yield
        return
    keras.distribution.set_distribution(None)
    try:
        yield
    finally:
        keras.distribution.set_distribution(devices)


def gathered(values: Any) -> Any:
    """Returns the arrays of a nest with those of all processes stacked in front of them. All processes call this.

    Args:
        values: a nest of NumPy arrays, of the same shapes in all processes; 64-bit numbers lose half their bits.
    """
    from jax.experimental import multihost_utils

    return multihost_utils.process_allgather(values)
