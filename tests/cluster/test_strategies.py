import contextlib
import sys
from types import SimpleNamespace

import pytest
import tensorflow as tf

from polynet_keras.cluster import internals, strategies
from polynet_keras.cluster.cluster import Cluster
from polynet_keras.cluster.communication import Communication
from polynet_keras.cluster.strategies import communication_options, open_strategy
from tests.processes import run_workers

ALONE, TWO = Cluster(), Cluster(("localhost:5000", "localhost:5001"), 0, "TF_CONFIG")


def test_one_device_has_no_strategy():
    assert open_strategy(cluster=ALONE) is None
    assert open_strategy("none", ALONE) is None


def test_mirrored():
    strategy = open_strategy("mirrored", ALONE)
    assert isinstance(strategy, tf.distribute.MirroredStrategy)
    assert strategy.num_replicas_in_sync == 1


@pytest.mark.parametrize("name", ["mirrored", "multi_worker"])
def test_what_feeds_the_devices_of_one_process_is_not_tuned(name, monkeypatch):
    """An iterator that is tuned may wait a minute for its end."""
    from tensorflow.python.data.ops import multi_device_iterator_ops as ops

    def tensorflows(count):
        """In place of TensorFlow's: another strategy of this process may have changed that already."""
        return tf.data.Dataset.range(count)

    monkeypatch.setattr(ops, "_create_device_dataset", tensorflows)
    open_strategy(name, ALONE)
    once = ops._create_device_dataset
    assert tensorflows(8).options().autotune.enabled is not False
    # Its options are looked at before it is iterated over, when the fixture of all tests would change them.
    assert once(8).options().autotune.enabled is False
    open_strategy(name, ALONE)
    assert ops._create_device_dataset is once  # a second strategy does not wrap it again


@pytest.mark.parametrize(("bound", "own"), [(False, ["gpu2", "gpu3"]), (True, None)])
def test_a_task_of_slurm_makes_only_its_own_gpus_visible(monkeypatch, bound, own):
    """In place of GPUs, and of a strategy of two workers, are names."""
    gpus, visible, made = [f"gpu{number}" for number in range(4)], [], []

    def strategy(resolver, options):
        made.append(resolver.num_accelerators())
        return SimpleNamespace()

    monkeypatch.setenv("SLURM_GPUS_ON_NODE", "8" if bound else "4")
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: gpus)
    monkeypatch.setattr(tf.config, "set_visible_devices", lambda devices, kind: visible.append((devices, kind)))
    monkeypatch.setattr(internals, "limit_connecting", lambda *arguments: None)
    monkeypatch.setattr(strategies, "limited_connecting", lambda *arguments: contextlib.nullcontext())
    monkeypatch.setattr(strategies, "MultiWorkerStrategy", strategy)
    cluster = Cluster(("node1:8888", "node1:8889"), 1, "Slurm")
    strategies._multi_worker_strategy(cluster, Communication())
    assert visible == ([] if own is None else [(own, "GPU")])
    assert made == [{"GPU": len(own or gpus)}]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("horovod", ALONE), "strategy='horovod' must be one of"),
        (("mirrored", TWO), "strategy='mirrored' is for one process, but TF_CONFIG has 2 workers"),
        (("none", TWO), "strategy='none' is for one process"),
        (("auto", ALONE, None, "my-tpu"), "tpu='my-tpu' is for strategy='tpu', but strategy='auto'"),
    ],
)
def test_what_does_not_fit_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        open_strategy(*arguments)


def test_a_tpu_that_cannot_be_initialized_is_one_line(monkeypatch):
    def initialize(resolver):
        raise tf.errors.NotFoundError(None, None, "No TPU\ndevices")

    monkeypatch.setattr(tf.distribute.cluster_resolver, "TPUClusterResolver", lambda tpu: tpu)
    monkeypatch.setattr(tf.config, "experimental_connect_to_cluster", lambda resolver: None)
    monkeypatch.setattr(tf.tpu.experimental, "initialize_tpu_system", initialize)
    for tpu, name in ((None, "of this environment"), ("node-1", "node-1")):
        with pytest.raises(ValueError, match=f"the TPU {name} could not be initialized: No TPU"):
            open_strategy("tpu", Cluster(), tpu=tpu)


@pytest.mark.slow
def test_a_missing_tpu_is_one_line():
    """TensorFlow looks for it for 20 seconds; in a process of its own, for it keeps what it tried to connect to."""
    (ended,) = run_workers(
        1,
        "from polynet_keras.cluster.cluster import Cluster\n"
        "from polynet_keras.cluster.strategies import open_strategy\n"
        "try:\n    open_strategy('tpu', Cluster())\n"
        "except ValueError as error:\n    print('REFUSED', error)",
    )
    line = next(line for line in ended.output.splitlines() if line.startswith("REFUSED"))
    assert "strategy='tpu': the TPU of this environment could not be initialized: " in line


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"timeout_seconds": 0}, "timeout_seconds=0 must be a finite number > 0"),
        ({"timeout_seconds": float("inf")}, "timeout_seconds=inf must be a finite number > 0"),
        ({"start_timeout": -1}, "start_timeout=-1 must be"),
        ({"implementation": "mpi"}, "implementation='mpi' must be one of"),
        ({"bytes_per_pack": 1.5}, "bytes_per_pack=1.5 must be an integer of at least 0"),
    ],
)
def test_communication_out_of_range(arguments, message):
    with pytest.raises(ValueError, match=message):
        Communication(**arguments)


def test_communication_as_tensorflow_takes_it():
    options = communication_options(Communication(timeout_seconds=7, bytes_per_pack=100))
    assert (options.bytes_per_pack, options.implementation.value) == (100, "RING")
    assert not options.timeout_seconds  # TensorFlow's costs a thread for each sum
    assert communication_options(Communication(implementation="nccl")).implementation.value == "NCCL"


def test_with_gpus_tensorflow_chooses_how_to_sum(monkeypatch):
    """It takes NCCL for tensors on GPUs, and the ring for all others."""
    gpu = tf.config.PhysicalDevice("/physical_device:GPU:0", "GPU")
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: {"GPU": [gpu]}[kind])
    for chosen, expected in {"auto": "AUTO", "ring": "RING", "nccl": "NCCL"}.items():
        assert communication_options(Communication(implementation=chosen)).implementation.value == expected


def test_a_strategy_of_workers_comes_first():
    ended = run_workers(
        2,
        "import tensorflow as tf\n"
        "from polynet_keras.cluster.strategies import open_strategy\n"
        "tf.zeros(1)\n"
        "try:\n    open_strategy()\n"
        "except ValueError as error:\n    print('REFUSED', error)",
    )
    for worker in ended:
        assert "REFUSED open a strategy of several workers first" in worker.output


def test_workers_sum():
    ended = run_workers(
        2,
        "import tensorflow as tf\n"
        "from polynet_keras.cluster.strategies import open_strategy\n"
        "from polynet_keras.cluster.workers import is_chief, worker_count, worker_index\n"
        "from polynet_keras.cluster.agreement import sum_over_workers\n"
        "strategy = open_strategy()\n"
        "print('FOUND', worker_count(strategy), sum_over_workers(strategy, 10 + worker_index(strategy)))\n"
        "from polynet_keras.cluster.cluster import Cluster, split_address\n"
        "from polynet_keras.cluster.loopback import _sockets\n"
        "cluster = Cluster.from_environment()\n"
        "port = split_address(cluster.workers[cluster.index])[1]\n"
        "heard = [one.getsockopt(1, 25, 16) for one in _sockets(port) if one.getsockopt(1, 30)]\n"
        "print('HEARD', heard)",  # SOL_SOCKET: SO_BINDTODEVICE of what SO_ACCEPTCONN says listens
    )
    assert [worker.code for worker in ended] == [0, 0], ended
    assert all("FOUND 2 21" in worker.output for worker in ended)
    if sys.platform == "linux":  # other machines do not reach TensorFlow's servers
        assert all(r"HEARD [b'lo\x00']" in worker.output for worker in ended), ended


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="counts the entries of /proc/self/task")
def test_sums_leave_no_threads_behind():
    ended = run_workers(
        2,
        "import os\n"
        "from polynet_keras.cluster.strategies import open_strategy\n"
        "from polynet_keras.cluster.agreement import sum_over_workers\n"
        "strategy = open_strategy()\n"
        "sum_over_workers(strategy, 1)\n"
        "before = len(os.listdir('/proc/self/task'))\n"
        "for _ in range(100):\n    sum_over_workers(strategy, 1)\n"
        "print('MORE', len(os.listdir('/proc/self/task')) - before)",
    )
    for worker in ended:
        assert int(worker.output.split("MORE ")[1].split()[0]) < 20, worker.output


@pytest.mark.slow
def test_the_datasets_of_workers_are_not_tuned():
    """An iterator that is tuned may wait a minute for its end."""
    ended = run_workers(
        2,
        "import tensorflow as tf\n"
        "from polynet_keras.cluster.strategies import open_strategy\n"
        "strategy = open_strategy()\n"
        "dataset = tf.data.Dataset.range(8).batch(4)\n"
        "both = (strategy.experimental_distribute_dataset(dataset),\n"
        "        strategy.distribute_datasets_from_function(lambda context: dataset))\n"
        "parts = [part for one in both for part in iter(one)._iterators]\n"
        "inner = [device._dataset for part in parts for device in part._iterator._device_iterators]\n"
        "datasets = [part._dataset for part in parts] + inner\n"
        "print('TUNED', [one.options().autotune.enabled for one in datasets], [len(list(one)) for one in both])",
    )
    for worker in ended:
        assert "TUNED [False, False, False, False] [2, 2]" in worker.output
