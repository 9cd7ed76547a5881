"""How a worker opens its devices on JAX, for which a module of this file stands in."""

import sys
from types import SimpleNamespace

import keras
import pytest

from polynet_keras.cluster import jax_devices
from polynet_keras.cluster.cluster import Cluster

TASKS = ("node1:8888", "node1:8889", "node2:8888")


@pytest.fixture
def initialized(monkeypatch):
    """Returns a list of what happens on a machine of four GPUs: the workers meet, and JAX connects them."""
    calls = []

    def initialize(
        coordinator_address,
        num_processes,
        process_id,
        local_device_ids,
        cluster_detection_method,
        initialization_timeout,
        heartbeat_timeout_seconds,
        shutdown_timeout_seconds,
        coordinator_bind_address,
    ):
        calls.append({"process": process_id, "gpus": local_device_ids, "bound": coordinator_bind_address})

    jax = SimpleNamespace(
        __version__="0",
        config=SimpleNamespace(update=lambda name, value: None),
        distributed=SimpleNamespace(initialize=initialize),
    )
    monkeypatch.setitem(sys.modules, "jax", jax)
    monkeypatch.setattr(jax_devices, "meet", lambda cluster, facts, limit: calls.append(facts))
    monkeypatch.setattr(jax_devices, "JaxDevices", lambda: "opened")
    monkeypatch.setattr(jax_devices, "visible_gpus", lambda: [*"0123"])
    return calls


@pytest.mark.parametrize(
    ("index", "on_node", "gpus"),
    [
        (0, "4", [0, 1]),
        (1, "4", [2, 3]),
        (0, "8", None),  # Slurm has bound them to the tasks
        (2, "4", None),  # alone on its machine
    ],
)
def test_a_task_of_slurm_opens_only_its_own_gpus(initialized, monkeypatch, index, on_node, gpus):
    monkeypatch.setenv("SLURM_GPUS_ON_NODE", on_node)
    assert jax_devices.open_devices(cluster=Cluster(TASKS, index, "Slurm")) == "opened"
    facts, settings = initialized
    assert (facts["JAX"], facts["Keras"]) == ("0", keras.__version__)
    assert settings == {"process": index, "gpus": gpus, "bound": None}


def test_what_the_user_gives_to_jax_holds(initialized, monkeypatch):
    monkeypatch.setenv("SLURM_GPUS_ON_NODE", "4")
    monkeypatch.setenv("JAX_LOCAL_DEVICE_IDS", "1")
    jax_devices.open_devices(cluster=Cluster(TASKS, 0, "Slurm"))
    assert initialized[-1]["gpus"] is None


@pytest.mark.parametrize(("on_node", "warned"), [("4", True), ("0", False), (None, False)])
def test_a_machine_whose_gpus_nobody_counts(initialized, monkeypatch, caplog, on_node, warned):
    """JAX documents None only, not an empty list."""
    monkeypatch.delenv("SLURM_GPUS_ON_NODE", raising=False)
    if on_node is not None:
        monkeypatch.setenv("SLURM_GPUS_ON_NODE", on_node)
    monkeypatch.setattr(jax_devices, "visible_gpus", list)
    jax_devices.open_devices(cluster=Cluster(TASKS, 1, "Slurm"))
    assert initialized[-1]["gpus"] is None
    assert ("nvidia-smi names no GPU, so each of the 2 tasks" in caplog.text) == warned


def test_only_slurms_tasks_ask_the_driver(initialized, monkeypatch):
    monkeypatch.setattr(jax_devices, "visible_gpus", None)
    jax_devices.open_devices(cluster=Cluster(("127.0.0.1:1", "127.0.0.1:2"), 1, "TF_CONFIG"))
    assert initialized[-1] == {"process": 1, "gpus": None, "bound": "127.0.0.1:1"}


def test_gpus_that_slurms_tasks_cannot_share_are_reported_before_the_workers_meet(initialized, monkeypatch):
    monkeypatch.setenv("SLURM_GPUS_ON_NODE", "4")
    tasks = Cluster(("node1:8888", "node1:8889", "node1:8890"), 0, "Slurm")
    with pytest.raises(ValueError, match="Slurm has 3 tasks on this machine, which cannot share its 4 GPUs equally"):
        jax_devices.open_devices(cluster=tasks)
    assert initialized == []
