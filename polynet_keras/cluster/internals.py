"""All private names of TensorFlow that this room uses, and the consequence if a name is removed."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import tensorflow as tf
from absl import logging
from tensorflow.python.data.ops import multi_device_iterator_ops
from tensorflow.python.eager import context

# Without one of these two modules the import of this one fails, and with it every use of a strategy.


def something_ran() -> bool:
    """Whether TensorFlow has opened its devices in this process; it then cannot start a server any more.

    Without the name: always False, and the other workers wait for a server that does not start.
    """
    return getattr(context.context(), "_context_handle", None) is not None


def limit_connecting(workers: int, seconds: int) -> None:
    """Limits how long TensorFlow's servers wait for each other, from an hour to `seconds`; call it before a strategy.

    Without the messages' module: a warning. Without the method: no error. They then wait for an hour.
    """
    current = context.context()
    if not hasattr(current, "configure_coordination_service") or current.coordination_service is not None:
        return
    try:
        from tensorflow.compiler.xla.tsl.protobuf import coordination_config_pb2
    except ImportError:
        logging.warning("TensorFlow %s has its timeouts for connecting elsewhere; they are not changed", tf.__version__)
        return
    current.configure_coordination_service(
        service_type="standalone",
        service_leader=_task(0),
        cluster_register_timeout_in_ms=seconds * 1000,
        coordinated_jobs=[coordination_config_pb2.CoordinatedJob(name="worker", num_tasks=workers)],
    )


def is_connected() -> bool:
    """Whether a strategy has connected this process with other workers.

    Without the name: AttributeError while an error is handled.
    """
    return context.context().coordination_service is not None


def answers(worker: int, seconds: int) -> bool:
    """Whether a worker answers within `seconds`.

    Without the name: AttributeError while another worker's error is handled.
    """
    try:
        context.context().check_collective_ops_peer_health(_task(worker), seconds * 1000)
    except tf.errors.OpError:
        return False
    return True


def tell_all(reason: str) -> None:
    """Ends the waits of the other workers, with this reason. Waits for ever for a stopped chief.

    Without the name: AttributeError in a thread; the others notice the failure, but not its reason.

    Raises:
        OpError, ValueError: the report reached nobody. A ValueError if nothing of TensorFlow has run.
    """
    context.context().report_error_to_cluster(tf.errors.UNAVAILABLE, reason)


def end_sums(reason: str) -> None:
    """Ends the sums that this worker waits for, with an error that has this reason.

    Without the name: a warning a minute; workers wait for each other without a limit.
    """
    context.context().abort_collective_ops(tf.errors.UNAVAILABLE, reason)


def put_up(key: str) -> None:
    """Shows a key to all workers. Raises an OpError if it cannot.

    Without the name: a warning a minute; workers wait for each other without a limit.
    """
    context.context().set_config_key_value(key, "")


def take_down(key: str) -> None:
    """Removes a key. Raises an OpError if it cannot.

    Without the name: a warning a minute; workers wait for each other without a limit.
    """
    context.context().delete_config_key_value(key)


def is_up(key: str, seconds: int) -> bool:
    """Whether a worker shows a key within `seconds`.

    Without the name: a warning a minute; workers wait for each other without a limit.
    """
    try:
        context.context().get_config_key_value(key, seconds * 1000)
    except tf.errors.OpError:
        return False
    return True


def make_variables_within(strategy: tf.distribute.Strategy, around: Callable[[], AbstractContextManager]) -> None:
    """Makes a strategy create each variable inside a context that `around` returns.

    Without the name: AttributeError when a strategy of several workers is opened.
    """
    create_variable = strategy.extended._create_variable

    def create_within(next_creator: Callable, **kwargs: Any) -> tf.Variable:
        with around():
            return create_variable(next_creator, **kwargs)

    strategy.extended._create_variable = create_within


def change_device_datasets(change: Callable[[tf.data.Dataset], tf.data.Dataset]) -> None:
    """Changes the datasets that TensorFlow puts before each device, with their own options, in the whole process.

    A second call changes nothing. Without the name: a warning; epochs under a strategy may end a minute late.
    """
    create = getattr(multi_device_iterator_ops, "_create_device_dataset", None)
    if create is None:
        logging.warning("TensorFlow %s feeds its devices in another way; epochs may end slowly", tf.__version__)
    elif create.__module__ != __name__:

        def create_changed(*args: Any, **kwargs: Any) -> tf.data.Dataset:
            return change(create(*args, **kwargs))

        multi_device_iterator_ops._create_device_dataset = create_changed


def _task(worker: int) -> str:
    return f"/job:worker/replica:0/task:{worker}"
