import json

import pytest

from polynet_keras.cluster.cluster import Cluster, expand_counts, expand_hosts, split_address


def config(cluster, task) -> dict[str, str]:
    return {"TF_CONFIG": json.dumps({"cluster": cluster, "task": task})}


def test_the_workers_of_tf_config():
    cluster = Cluster.from_environment(config({"worker": ["a:1", "b:2"]}, {"type": "worker", "index": 1}))
    assert cluster == Cluster(("a:1", "b:2"), 1, "TF_CONFIG")
    assert (cluster.count, cluster.is_chief, cluster.is_distributed) == (2, False, True)
    assert cluster.name(1) == "worker 1 (b:2)"


def test_a_chief_is_worker_0():
    jobs = {"chief": ["a:1"], "worker": ["b:2", "[::1]:3"]}
    chief = Cluster.from_environment(config(jobs, {"type": "chief", "index": 0}))
    last = Cluster.from_environment(config(jobs, {"type": "worker", "index": "1"}))  # some launchers write text
    assert chief.workers == last.workers == ("a:1", "b:2", "[::1]:3")
    assert (chief.index, last.index) == (0, 2)
    assert split_address(last.workers[2]) == ("::1", 3)


@pytest.mark.parametrize("environment", [{}, {"TF_CONFIG": ""}, {"TF_CONFIG": "{}"}, {"SLURM_JOB_ID": "7"}])
def test_a_process_alone(environment):
    cluster = Cluster.from_environment(environment)
    assert (cluster.count, cluster.index, cluster.is_chief, cluster.is_distributed) == (1, 0, True, False)


WORKER = {"type": "worker", "index": 0}


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"TF_CONFIG": "{"}, r"TF_CONFIG is not JSON \(Expecting.*\); expected \{\"cluster\": .*, got \{"),
        ({"TF_CONFIG": "[1]"}, "TF_CONFIG has no `cluster` and `task`"),
        ({"TF_CONFIG": '{"cluster": {"worker": ["a:1"]}}'}, "has no `cluster` and `task`"),
        (config({"worker": ["a:1"], "ps": ["b:1"]}, WORKER), "has the job 'ps'; only `worker` and `chief`"),
        (config({"worker": "a:1"}, WORKER), "has no list of addresses as 'worker'"),
        (config({"worker": ["a:1"], "chief": ["b:1", "c:1"]}, WORKER), "has 2 chiefs"),
        (config({"worker": ["a:1"]}, {"type": "evaluator", "index": 0}), "has the task type 'evaluator'"),
        (config({"worker": ["a:1"]}, {"type": "chief", "index": 0}), "has the task type 'chief'"),
        (
            config({"worker": ["a:1"]}, {"type": "worker", "index": 1}),
            "has the index 1, but the job 'worker' has 1 task",
        ),
        (config({"worker": ["a:1"]}, {"type": "worker", "index": True}), "has the index True"),
        (config({"worker": ["a:1"]}, {"type": "worker"}), "has the index None"),
        (config({"worker": ["a:1", "a:1"]}, WORKER), "TF_CONFIG has a:1 more than once among the workers"),
        (config({"worker": ["a"]}, WORKER), "TF_CONFIG has the address 'a'; expected host:port"),
        (config({"worker": ["a:0"]}, WORKER), "the address 'a:0'"),
        ({"TF_CONFIG": "[" * 100_000}, "TF_CONFIG is not JSON .maximum recursion depth exceeded"),
        (config({"worker": ["a:65536"]}, WORKER), "the address 'a:65536'"),
        (config({"worker": ["::1:80"]}, WORKER), "the address '::1:80'"),
        (config({"worker": ["http://a:80"]}, WORKER), "the address 'http://a:80'"),
    ],
)
def test_what_is_no_cluster_is_quoted(environment, message):
    with pytest.raises(ValueError, match=message):
        Cluster.from_environment(environment)


def slurm(**changes) -> dict[str, str]:
    step = {
        "SLURM_JOB_ID": "7",
        "SLURM_STEP_NUM_TASKS": "3",
        "SLURM_PROCID": "2",
        "SLURM_STEP_NODELIST": "gpu[07-08]",
        "SLURM_STEP_TASKS_PER_NODE": "2,1",
    }
    return {name: value for name, value in {**step, **changes}.items() if value is not None}


def test_the_tasks_of_a_slurm_step():
    cluster = Cluster.from_environment(slurm())
    assert cluster == Cluster(("gpu07:8888", "gpu07:8889", "gpu08:8888"), 2, "Slurm")
    assert not Cluster.from_environment(slurm(SLURM_STEP_NUM_TASKS="1", SLURM_PROCID="0")).is_distributed


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"SLURM_STEP_NODELIST": None}, "SLURM_STEP_NODELIST is not set; start the workers with srun"),
        ({"SLURM_STEP_TASKS_PER_NODE": "3"}, "names 2 nodes .* and the tasks of 1"),
        ({"SLURM_STEP_TASKS_PER_NODE": "x"}, "tasks per node 'x' cannot be read"),
        ({"SLURM_STEP_NODELIST": "gpu[7"}, r"node list 'gpu\[7' cannot be read"),
        ({"SLURM_STEP_NODELIST": "gpu[a-b]"}, "cannot be read at 'a-b'"),
        ({"SLURM_STEP_NODELIST": "gpu[3-1]"}, "cannot be read at '3-1'"),
        ({"SLURM_STEP_TASKS_PER_NODE": "2(x2)"}, "says that 3 tasks run, but 4 on gpu"),
        ({"SLURM_STEP_NUM_TASKS": "two"}, "Slurm's SLURM_STEP_NUM_TASKS is 'two'; expected a number"),
        ({"SLURM_PROCID": "-1"}, "Slurm's SLURM_PROCID is '-1'; expected a number"),
        ({"SLURM_PROCID": "3"}, "Slurm says this is worker 3; expected 0 to 2"),
    ],
)
def test_a_slurm_step_that_cannot_be_read(changes, message):
    with pytest.raises(ValueError, match=message):
        Cluster.from_environment(slurm(**changes))


def test_workers_of_one_machine():
    cluster = Cluster(("a:1", "b:1", "b:2", "[::1]:7"), 2, "TF_CONFIG")
    assert cluster.on_this_machine == [1, 2]
    assert Cluster().on_this_machine == [0]
    divided = Cluster(("a:8888", "[::1]:90"), 1, "Slurm").divided(3)
    assert divided.workers == ("a:8888", "a:8889", "a:8890", "[::1]:90", "[::1]:91", "[::1]:92")
    assert (divided.index, divided.source) == (3, "Slurm")
    with pytest.raises(ValueError, match="TF_CONFIG has a:2 more than once"):
        Cluster(("a:1", "a:2"), 0, "TF_CONFIG").divided(2)


@pytest.mark.parametrize(
    ("index", "seen", "variables", "own"),
    [
        (0, 8, {"SLURM_GPUS_ON_NODE": "8"}, [0, 1, 2, 3]),
        (1, 8, {"SLURM_GPUS_ON_NODE": "8"}, [4, 5, 6, 7]),
        (3, 2, {"SLURM_GPUS_ON_NODE": "2"}, [1]),
        (1, 4, {"SLURM_GPUS_ON_NODE": "8"}, [0, 1, 2, 3]),  # Slurm has bound them
        (1, 2, {"SLURM_GPUS_ON_NODE": "2", "SLURM_GPUS_PER_TASK": "2"}, [0, 1]),
        (1, 2, {}, [0, 1]),  # another scheduler's, of which nothing is known
        (1, 1, {"SLURM_GPUS_ON_NODE": "1"}, [0]),
        (4, 8, {"SLURM_GPUS_ON_NODE": "8"}, range(8)),  # alone on its machine
        (0, 0, {"SLURM_GPUS_ON_NODE": "8"}, []),
    ],
)
def test_each_task_of_slurm_takes_its_share_of_the_gpus(index, seen, variables, own):
    workers = ("a:8888", "a:8889", "b:8888", "b:8889", "c:8888")
    assert list(Cluster(workers, index, "Slurm").own_gpus(seen, variables)) == list(own)
    assert list(Cluster(workers, index, "TF_CONFIG").own_gpus(seen, variables)) == list(range(seen))


def test_gpus_that_slurms_tasks_cannot_share():
    cluster = Cluster(("a:8888", "a:8889", "a:8890"), 0, "Slurm")
    with pytest.raises(ValueError, match="Slurm has 3 tasks on this machine, which cannot share its 4 GPUs equally"):
        cluster.own_gpus(4, {"SLURM_GPUS_ON_NODE": "4"})


def test_slurms_notation():
    """As `scontrol show hostnames` expands it."""
    assert expand_hosts("login,gpu[1-3,07]-ib,cpu12") == ["login", "gpu1-ib", "gpu2-ib", "gpu3-ib", "gpu07-ib", "cpu12"]
    assert expand_hosts("r[1-2]n[8-9]x") == ["r1n8x", "r1n9x", "r2n8x", "r2n9x"]
    assert expand_hosts("n[098-101]") == ["n098", "n099", "n100", "n101"]
    assert expand_counts("2(x3),1") == [2, 2, 2, 1]


@pytest.mark.parametrize(
    "address",
    [
        "a",
        "a:",
        ":1",
        "a:0",
        "a:65536",
        "a:01",
        "a:-1",
        "a:\u0663",
        " a:1",
        "a b:1",
        "::1:1",
        "[a]b:1",
        "[::1]",
        "http://a:1",
    ],
)
def test_what_is_no_address(address):
    with pytest.raises(ValueError, match="expected host:port with a port from 1 to 65535"):
        Cluster((address,), source="TF_CONFIG")


@pytest.mark.parametrize("address", ["a..b:1", f"{'a' * 64}:1", ".:1", "\ud800:1"])
def test_what_is_no_name_of_a_machine(address):
    """The socket module would say `encoding with 'idna' codec failed`, of no address."""
    with pytest.raises(ValueError, match=r"TF_CONFIG has the address .*, whose host is not a valid name"):
        Cluster((address,), source="TF_CONFIG")


def test_addresses_that_only_this_machine_reaches():
    for hosts, expected in (
        (("127.0.0.1", "127.0.0.1"), True),
        (("localhost", "127.1.2.3", "[::1]"), True),
        (("127.0.0.1", "192.0.2.1"), False),
        (("node1", "node1"), False),
        (("[fe80::1%eth0]", "[::1]"), False),
    ):
        workers = tuple(f"{host}:{5000 + index}" for index, host in enumerate(hosts))
        assert Cluster(workers).is_loopback is expected
    assert not Cluster().is_loopback


@pytest.mark.parametrize("kind", [["worker"], None, 1, "evaluator"])
def test_a_task_type_that_is_no_job(kind):
    config = {"cluster": {"worker": ["a:1", "b:1"]}, "task": {"type": kind, "index": 0}}
    with pytest.raises(ValueError, match="task type .* which is not a job of the cluster"):
        Cluster.from_environment({"TF_CONFIG": json.dumps(config)})


def test_an_allocation_without_srun_is_one_process():
    assert Cluster.from_environment({"SLURM_JOB_ID": "7", "SLURM_NTASKS": "4"}) == Cluster()
