"""Worker processes on loopback, for tests."""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from tests.children import ROOT, Child


@dataclass(frozen=True)
class Finished:
    """How a worker ended: `code` is negative for a signal."""

    code: int
    output: str
    seconds: float


def free_addresses(count: int) -> list[str]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [f"127.0.0.1:{server.getsockname()[1]}" for server in sockets]


def tf_config(addresses: Sequence[str], index: int) -> str:
    return json.dumps({"cluster": {"worker": list(addresses)}, "task": {"type": "worker", "index": index}})


def run_workers(
    count: int, script: str | Path, *arguments: str, timeout: float = 180, stops: int | None = None, fresh: bool = False
) -> list[Finished]:
    """Runs a script, or a program's text, as so many workers of one cluster; all are killed when the time is over.

    Args:
        count: of the workers.
        script: a file or the text.
        arguments: of the script.
        timeout: in seconds, for all together.
        stops: a worker that never ends, and is killed when all others have ended.
        fresh: start interpreters, instead of children that have TensorFlow imported.
    """
    addresses = free_addresses(count)
    processes = [start(script, *arguments, config=tf_config(addresses, index), fresh=fresh) for index in range(count)]
    start_time = time.monotonic()
    finished: dict[int, Finished] = {}
    order = sorted(range(count), key=lambda index: index == stops)
    try:
        for index in order:
            if index == stops:
                processes[index].kill()
            output, _ = processes[index].communicate(timeout=max(1.0, start_time + timeout - time.monotonic()))
            finished[index] = Finished(processes[index].returncode, output, time.monotonic() - start_time)
    finally:
        for process in processes:
            process.kill()
            process.wait()
    return [finished[index] for index in range(count)]


def start(script: str | Path, *arguments: str, config: str, fresh: bool) -> Child | subprocess.Popen:
    if not fresh:
        return Child(script, *arguments, env={"TF_CONFIG": config}, stderr=subprocess.STDOUT)
    command = [sys.executable, str(script)] if isinstance(script, Path) else [sys.executable, "-c", script]
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "2", "TF_CONFIG": config, "PYTHONPATH": str(ROOT)}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen([*command, *arguments], env=environment, **pipes)
