"""A program for tests: what this package uses of TensorFlow's eager context, in workers that are connected.

    python tests/contracts/workers.py RESULTS.json

The connections of a worker cannot be closed in its process, and a worker whose sums were aborted is of no more use:
each worker is a fork of this process, made once TensorFlow is imported and before anything of it runs. Results are by
name, as the tests call them: what was found, or the error.
"""

import json
import os
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import tensorflow as tf
from tensorflow.python.eager import context

REASON = "worker 1 (127.0.0.1:7) failed: KeyError: 'a bug'"
REGISTER_MILLISECONDS = 30_000
LIMIT_SECONDS = 120


def addresses(count: int) -> list[str]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [f"127.0.0.1:{server.getsockname()[1]}" for server in sockets]


def noted(results: dict, name: str, find: Callable):
    """Notes what a function finds, or its error."""
    try:
        results[name] = {"found": find()}
    except Exception as error:
        results[name] = {
            "error": f"{type(error).__name__}: {error}",
            "is_op_error": isinstance(error, tf.errors.OpError),
        }


def connect(workers: list[str], index: int) -> tf.distribute.Strategy:
    """As `open_strategy` does it."""
    from tensorflow.compiler.xla.tsl.protobuf import coordination_config_pb2

    jobs = [coordination_config_pb2.CoordinatedJob(name="worker", num_tasks=len(workers))]
    context.context().configure_coordination_service(
        service_type="standalone",
        service_leader="/job:worker/replica:0/task:0",
        cluster_register_timeout_in_ms=REGISTER_MILLISECONDS,
        coordinated_jobs=jobs,
    )
    resolver = tf.distribute.cluster_resolver.SimpleClusterResolver(
        tf.train.ClusterSpec({"worker": workers}),
        task_type="worker",
        task_id=index,
        num_accelerators={"GPU": 0},
        rpc_layer="grpc",
    )
    return tf.distribute.MultiWorkerMirroredStrategy(resolver)


def check_health(index: int) -> None:
    return context.context().check_collective_ops_peer_health(f"/job:worker/replica:0/task:{index}", 3000)


def wait_for_a_sum() -> Callable[[], str]:
    """Begins a sum of two workers that the other one does not come to.

    Returns:
        Waits until the sum fails, and returns the text of TensorFlow's error.
    """
    texts = []

    def reduce() -> None:
        try:
            tf.raw_ops.CollectiveReduceV2(
                input=tf.ones(2),
                group_size=2,
                group_key=5,
                instance_key=7,
                ordering_token=[],
                merge_op="Add",
                final_op="Id",
                timeout_seconds=60,
            )
        except tf.errors.OpError as error:
            texts.append(str(error))

    thread = threading.Thread(target=reduce, daemon=True)
    thread.start()
    time.sleep(0.2)  # it waits

    def text() -> str:
        thread.join(20)
        return texts[0] if texts else "no error within 20 s"

    return text


def alone() -> dict:
    """A worker that is all of its cluster."""
    results: dict = {}
    current = context.context()
    noted(results, "handle before", lambda: current._context_handle is None)
    noted(results, "service before", lambda: current.coordination_service is None)
    strategy = connect(addresses(1), 0)
    noted(results, "handle after", lambda: current._context_handle is not None)
    noted(results, "service after", lambda: current.coordination_service is not None)
    noted(results, "server", lambda: str(current._collective_ops_server_def.default_session_config))

    created = []

    def create_variable():
        create = strategy.extended._create_variable

        def noting(next_creator, **arguments):
            created.append(float(arguments["initial_value"]))
            return create(next_creator, **arguments)

        strategy.extended._create_variable = noting
        with strategy.scope():
            return [created, float(tf.Variable(3.0).numpy())]

    noted(results, "create_variable", create_variable)
    noted(results, "set", lambda: current.set_config_key_value("polynet_keras/1", ""))
    noted(results, "get", lambda: str(current.get_config_key_value("polynet_keras/1", 2000)))
    noted(results, "delete", lambda: current.delete_config_key_value("polynet_keras/1"))
    noted(results, "get deleted", lambda: str(current.get_config_key_value("polynet_keras/1", 100)))
    noted(results, "health", lambda: current.check_collective_ops_peer_health("/job:worker/replica:0/task:0", 3000))
    noted(
        results,
        "health of none",
        lambda: current.check_collective_ops_peer_health("/job:worker/replica:0/task:1", 3000),
    )
    text = wait_for_a_sum()
    noted(results, "abort", lambda: current.abort_collective_ops(tf.errors.UNAVAILABLE, REASON))
    noted(results, "aborted", text)
    return results


def chief(workers: list[str]) -> dict:
    """A worker that waits for one that fails."""
    results: dict = {}
    connect(workers, 0)
    current = context.context()
    noted(results, "health of another", lambda: check_health(1))
    noted(results, "set", lambda: current.set_config_key_value("polynet_keras/waits", ""))
    noted(results, "told", wait_for_a_sum())
    for _ in range(100):
        noted(results, "health of a failed one", lambda: check_health(1))
        if "error" in results["health of a failed one"]:
            break
        time.sleep(0.05)
    return results


def failing(workers: list[str]) -> dict:
    """A worker that fails once the chief waits."""
    results: dict = {}
    connect(workers, 1)
    current = context.context()
    noted(results, "get", lambda: str(current.get_config_key_value("polynet_keras/waits", 20_000)))
    time.sleep(0.3)
    noted(results, "report", lambda: current.report_error_to_cluster(tf.errors.UNAVAILABLE, REASON))
    time.sleep(1.0)  # before this process ends, the chief has heard of the error
    return results


def main(path: str) -> None:
    two = addresses(2)
    workers = {"alone": alone, "chief": lambda: chief(two), "failing": lambda: failing(two)}
    started = {}
    for name, worker in workers.items():
        started[name] = os.fork()
        if started[name] == 0:
            signal.alarm(LIMIT_SECONDS)
            try:
                Path(f"{path}.{name}").write_text(json.dumps(worker()))
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(0)  # without TensorFlow's teardown, which waits for the others
    for process in started.values():
        os.waitpid(process, 0)
    files = {name: Path(f"{path}.{name}") for name in workers}
    results = {name: json.loads(file.read_text()) for name, file in files.items() if file.exists()}
    Path(path).write_text(json.dumps(results))


if __name__ == "__main__":
    main(sys.argv[1])
