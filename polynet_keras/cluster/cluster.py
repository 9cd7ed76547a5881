"""The processes that train together, and the place of this one among them: a value, read from the environment."""

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product
from typing import Any

from polynet_keras.basics.checks import is_integer
from polynet_keras.basics.names import number_of

SLURM_PORT = 8888
"""The port of every task under Slurm, whose addresses have no ports. Tasks that share a node count upwards from it."""

LAYOUT = '{"cluster": {"worker": ["host:port", ...]}, "task": {"type": "worker", "index": 0}}'


@dataclass(frozen=True)
class Cluster:
    """The workers of a training, and this process's place among them.

    Attributes:
        workers: the addresses of all workers, `host:port`; empty for a single process.
        index: the index of this process.
        source: the source of the settings: `"TF_CONFIG"`, `"Slurm"` or `"none"`.

    Raises:
        ValueError: an address is invalid or given twice, or no worker has the index.

    Examples:
        >>> config = '{"cluster": {"worker": ["a:2222", "b:2222"]}, "task": {"type": "worker", "index": 1}}'
        >>> cluster = Cluster.from_environment({"TF_CONFIG": config})
        >>> cluster.count, cluster.is_chief
        (2, False)
    """

    workers: tuple[str, ...] = ()
    index: int = 0
    source: str = "none"

    def __post_init__(self):
        for address in self.workers:
            _check_address(address, self.source)
        twice = sorted({address for address in self.workers if self.workers.count(address) > 1})
        if twice:
            raise ValueError(
                f"{self.source} has {twice[0]} more than once among the workers; each needs its own host:port"
            )
        if not 0 <= self.index < self.count:
            raise ValueError(f"{self.source} says this is worker {self.index}; expected 0 to {self.count - 1}")

    @property
    def count(self) -> int:
        """The number of processes, at least 1."""
        return max(1, len(self.workers))

    @property
    def is_chief(self) -> bool:
        """Whether this process writes files and shows progress."""
        return self.index == 0

    @property
    def is_distributed(self) -> bool:
        return self.count > 1

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach the addresses of all workers."""
        hosts = {split_address(worker)[0] for worker in self.workers}
        return bool(hosts) and all(host in ("localhost", "::1") or host.startswith("127.") for host in hosts)

    @property
    def on_this_machine(self) -> list[int]:
        """The indices of the workers with the host of this one."""
        if not self.workers:
            return [self.index]
        hosts = [split_address(worker)[0] for worker in self.workers]
        return [index for index, host in enumerate(hosts) if host == hosts[self.index]]

    def divided(self, parts: int) -> "Cluster":
        """Returns the cluster with `parts` workers in place of each one, at its port and those after it.

        Its index is that of the first one in place of this process.
        """
        workers = []
        for address in self.workers:
            host, _, port = address.rpartition(":")
            workers += [f"{host}:{int(port) + part}" for part in range(parts)]
        return Cluster(tuple(workers), self.index * parts, self.source)

    def own_gpus(self, count: int, environ: Mapping[str, str] | None = None) -> range:
        """Returns the indices of this process's GPUs among those that it sees: all, or an equal share.

        Slurm shows all GPUs of a job step on a machine to each of its tasks there, unless it binds them to the tasks.

        Args:
            count: the number of GPUs that this process sees.
            environ: the environment; by default the process's.

        Raises:
            ValueError: the tasks of this machine cannot share the GPUs equally.
        """
        environ = os.environ if environ is None else environ
        tasks = self.on_this_machine
        are_bound = "SLURM_GPUS_PER_TASK" in environ or environ.get("SLURM_GPUS_ON_NODE") != str(count)
        if self.source != "Slurm" or len(tasks) == 1 or are_bound or count < len(tasks):
            return range(count)
        if count % len(tasks):
            raise ValueError(
                f"Slurm has {len(tasks)} tasks on this machine, which cannot share its {count} GPUs equally; change "
                "--ntasks-per-node"
            )
        share, place = count // len(tasks), tasks.index(self.index)
        return range(place * share, (place + 1) * share)

    def name(self, index: int) -> str:
        """Returns the name of a worker in messages: `worker 1 (host:port)`."""
        return f"worker {index} ({self.workers[index]})" if self.workers else f"worker {index}"

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] | None = None) -> "Cluster":
        """Returns the cluster of TF_CONFIG, else of a Slurm job step with several tasks, else this process alone.

        A job named `chief` in TF_CONFIG is worker 0, as in TensorFlow.

        Args:
            environ: the environment; by default the process's.

        Raises:
            ValueError: the variables are set but describe no cluster. The message quotes them.
        """
        environ = os.environ if environ is None else environ
        if environ.get("TF_CONFIG", "").strip():
            return _from_tf_config(environ["TF_CONFIG"])
        if "SLURM_PROCID" in environ and (environ.get("SLURM_STEP_NUM_TASKS") or "1") != "1":
            return _from_slurm(environ)
        return cls()


def _from_tf_config(text: str) -> Cluster:
    def refuse(what: str) -> ValueError:
        shown = text if len(text) <= 300 else f"{text[:300]}..."
        return ValueError(f"TF_CONFIG {what}; expected {LAYOUT}, got {shown}")

    try:
        config = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise refuse(f"is not JSON ({error})") from None
    if config == {}:
        return Cluster()
    cluster, task = (config.get(key) if isinstance(config, dict) else None for key in ("cluster", "task"))
    if not isinstance(cluster, dict) or not isinstance(task, dict):
        raise refuse("has no `cluster` and `task`")
    unknown = sorted(set(cluster) - {"chief", "worker"})
    if unknown:
        raise refuse(f"has the job {unknown[0]!r}; only `worker` and `chief` train together")
    jobs: dict[str, list[Any]] = {job: cluster.get(job, []) for job in ("chief", "worker")}
    for job, addresses in jobs.items():
        if not isinstance(addresses, list) or not all(isinstance(address, str) for address in addresses):
            raise refuse(f"has no list of addresses as {job!r}")
    if len(jobs["chief"]) > 1:
        raise refuse(f"has {len(jobs['chief'])} chiefs; at most one is possible")
    kind: Any = task.get("type")
    index: Any = task.get("index")
    if not isinstance(kind, str) or not jobs.get(kind):
        raise refuse(f"has the task type {kind!r}, which is not a job of the cluster")
    if isinstance(index, str) and index.isdecimal():
        index = int(index)
    if not is_integer(index) or not 0 <= index < len(jobs[kind]):
        raise refuse(
            f"has the index {task.get('index')!r}, but the job {kind!r} has {number_of(len(jobs[kind]), 'task')}"
        )
    first = len(jobs["chief"]) if kind == "worker" else 0
    return Cluster(tuple(jobs["chief"] + jobs["worker"]), first + index, "TF_CONFIG")


def _from_slurm(environ: Mapping[str, str]) -> Cluster:
    """Reads the job step's variables. TensorFlow's resolver would need `scontrol` on every node."""
    try:
        hosts = expand_hosts(environ["SLURM_STEP_NODELIST"])
        tasks = expand_counts(environ["SLURM_STEP_TASKS_PER_NODE"])
        count, index = (_slurm_number(environ, name) for name in ("SLURM_STEP_NUM_TASKS", "SLURM_PROCID"))
    except KeyError as error:
        raise ValueError(f"Slurm's {error.args[0]} is not set; start the workers with srun") from None
    if len(hosts) != len(tasks):
        raise ValueError(
            f"Slurm names {len(hosts)} nodes ({environ['SLURM_STEP_NODELIST']}) and the tasks of {len(tasks)} "
            f"({environ['SLURM_STEP_TASKS_PER_NODE']})"
        )
    if sum(tasks) != count:
        raise ValueError(f"Slurm says that {count} tasks run, but {sum(tasks)} on {environ['SLURM_STEP_NODELIST']}")
    workers = [f"{host}:{SLURM_PORT + task}" for host, count in zip(hosts, tasks, strict=True) for task in range(count)]
    return Cluster(tuple(workers), index, "Slurm")


def _slurm_number(environ: Mapping[str, str], name: str) -> int:
    if not re.fullmatch(r"[0-9]+", environ[name]):
        raise ValueError(f"Slurm's {name} is {environ[name]!r}; expected a number")
    return int(environ[name])


def expand_hosts(text: str) -> list[str]:
    """Returns the hosts of a Slurm node list: `"gpu[1-2,07],rack[1-2]n1"` → gpu1, gpu2, gpu07, rack1n1, rack2n1."""
    if not re.fullmatch(r"(?:[^\[\]]|\[[^\[\]]+\])+", text):
        raise ValueError(f"Slurm's node list {text!r} cannot be read")
    hosts: list[str] = []
    for name in re.findall(r"(?:[^,\[]|\[[^\]]*\])+", text):
        # Text outside of brackets alternates with numbers inside.
        parts = [_expand_numbers(part, text) if i % 2 else [part] for i, part in enumerate(re.split(r"[\[\]]", name))]
        hosts += map("".join, product(*parts))
    return hosts


def _expand_numbers(numbers: str, text: str) -> list[str]:
    found = []
    for part in numbers.split(","):
        match = re.fullmatch(r"([0-9]+)(?:-([0-9]+))?", part)
        low, high = (match[1], match[2] or match[1]) if match else ("1", "0")
        if int(low) > int(high):
            raise ValueError(f"Slurm's node list {text!r} cannot be read at {part!r}")
        found += [f"{number:0{len(low)}d}" for number in range(int(low), int(high) + 1)]
    return found


def expand_counts(text: str) -> list[int]:
    """Returns the number of tasks of each node: `"2(x3),1"` → 2, 2, 2, 1."""
    counts: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"(\d+)(?:\(x(\d+)\))?", part)
        if match is None:
            raise ValueError(f"Slurm's tasks per node {text!r} cannot be read at {part!r}")
        counts += [int(match[1])] * int(match[2] or 1)
    return counts


def split_address(address: str) -> tuple[str, int]:
    """Returns the host (without the brackets of IPv6) and the port."""
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)


def _check_address(address: str, source: str) -> None:
    match = re.fullmatch(r"(?:[^\s/:\[\]]+|\[[0-9A-Fa-f:.]+(?:%\w+)?\]):([1-9][0-9]{0,4})", address)
    if match is None or int(match[1]) > 65535:
        raise ValueError(f"{source} has the address {address!r}; expected host:port with a port from 1 to 65535")
    try:
        split_address(address)[0].encode("idna")  # the socket module encodes it too, but its error names no address
    except UnicodeError:
        raise ValueError(f"{source} has the address {address!r}, whose host is not a valid name") from None
