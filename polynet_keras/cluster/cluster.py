"""Which processes train together, and which of them this one is: a value, read from the environment."""

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
"""Of every task under Slurm, which gives addresses no ports; tasks that share a node count on from it."""

LAYOUT = '{"cluster": {"worker": ["host:port", ...]}, "task": {"type": "worker", "index": 0}}'


@dataclass(frozen=True)
class Cluster:
    """The workers of a training, and this process's place among them.

    Attributes:
        workers: their addresses, `host:port`; empty for a process alone.
        index: of this process.
        source: where it was read: `"TF_CONFIG"`, `"Slurm"` or `"none"`.

    Raises:
        ValueError: an address that is none or comes twice, or an index that is no worker's.
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
        """Processes: at least 1."""
        return max(1, len(self.workers))

    @property
    def is_chief(self) -> bool:
        """Whether this process is the one that writes and shows progress."""
        return self.index == 0

    @property
    def is_distributed(self) -> bool:
        return self.count > 1

    @property
    def is_loopback(self) -> bool:
        """Whether all workers are at addresses that only this machine reaches."""
        hosts = {split_address(worker)[0] for worker in self.workers}
        return bool(hosts) and all(host in ("localhost", "::1") or host.startswith("127.") for host in hosts)

    def name(self, index: int) -> str:
        """A worker as messages call it: `worker 1 (host:port)`."""
        return f"worker {index} ({self.workers[index]})" if self.workers else f"worker {index}"

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] | None = None) -> "Cluster":
        """The cluster of TF_CONFIG, else of a Slurm job step with several tasks, else this process alone.

        A job named `chief` in TF_CONFIG is worker 0, as for TensorFlow.

        Args:
            environ: the environment; by default the process's.

        Raises:
            ValueError: the variables are there and say no cluster; the message quotes what they say.
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
        raise refuse(f"has the job {unknown[0]!r}, and only `worker` and `chief` train together")
    jobs: dict[str, list[Any]] = {job: cluster.get(job, []) for job in ("chief", "worker")}
    for job, addresses in jobs.items():
        if not isinstance(addresses, list) or not all(isinstance(address, str) for address in addresses):
            raise refuse(f"has no list of addresses as {job!r}")
    if len(jobs["chief"]) > 1:
        raise refuse(f"has {len(jobs['chief'])} chiefs, and may have one")
    kind: Any = task.get("type")
    index: Any = task.get("index")
    if not isinstance(kind, str) or not jobs.get(kind):
        raise refuse(f"has the task type {kind!r}, which is not a job of the cluster")
    if isinstance(index, str) and index.isdecimal():
        index = int(index)
    if not is_integer(index) or not 0 <= index < len(jobs[kind]):
        raise refuse(
            f"has the index {task.get('index')!r}, and the job {kind!r} has {number_of(len(jobs[kind]), 'task')}"
        )
    first = len(jobs["chief"]) if kind == "worker" else 0
    return Cluster(tuple(jobs["chief"] + jobs["worker"]), first + index, "TF_CONFIG")


def _from_slurm(environ: Mapping[str, str]) -> Cluster:
    """TensorFlow's resolver needs `scontrol` on every node; the job step's own variables say as much."""
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
        raise ValueError(f"Slurm says that {count} tasks run, and {sum(tasks)} on {environ['SLURM_STEP_NODELIST']}")
    workers = [f"{host}:{SLURM_PORT + task}" for host, count in zip(hosts, tasks, strict=True) for task in range(count)]
    return Cluster(tuple(workers), index, "Slurm")


def _slurm_number(environ: Mapping[str, str], name: str) -> int:
    if not re.fullmatch(r"[0-9]+", environ[name]):
        raise ValueError(f"Slurm's {name} is {environ[name]!r}; expected a number")
    return int(environ[name])


def expand_hosts(text: str) -> list[str]:
    """The hosts of a Slurm node list: `"gpu[1-2,07],rack[1-2]n[1-2]"` → gpu1, gpu2, gpu07, rack1n1, rack1n2, ..."""
    if not re.fullmatch(r"(?:[^\[\]]|\[[^\[\]]+\])+", text):
        raise ValueError(f"Slurm's node list {text!r} cannot be read")
    hosts: list[str] = []
    for name in re.findall(r"(?:[^,\[]|\[[^\]]*\])+", text):
        # Names outside of brackets and numbers inside take turns.
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
    """The tasks of each node: `"2(x3),1"` → 2, 2, 2, 1."""
    counts: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"(\d+)(?:\(x(\d+)\))?", part)
        if match is None:
            raise ValueError(f"Slurm's tasks per node {text!r} cannot be read at {part!r}")
        counts += [int(match[1])] * int(match[2] or 1)
    return counts


def split_address(address: str) -> tuple[str, int]:
    """Host (without the brackets of IPv6) and port."""
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)


def _check_address(address: str, source: str) -> None:
    match = re.fullmatch(r"(?:[^\s/:\[\]]+|\[[0-9A-Fa-f:.]+(?:%\w+)?\]):([1-9][0-9]{0,4})", address)
    if match is None or int(match[1]) > 65535:
        raise ValueError(f"{source} has the address {address!r}; expected host:port with a port from 1 to 65535")
    try:
        split_address(address)[0].encode("idna")  # as the socket module does, whose error names no address
    except UnicodeError:
        raise ValueError(f"{source} has the address {address!r}, whose host is not the name of a machine") from None
