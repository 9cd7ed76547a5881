"""Jobs of small scripts under the supervisor, in a process of its own, for tests."""

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MARK = "POLYNET_TEST_JOB"

LAUNCHER = """
import json, os, pathlib, signal, sys

sys.modules["keras"] = sys.modules["tensorflow"] = None  # as if neither were installed
from polynet_keras.cluster.cluster import Cluster
from polynet_keras.launcher import supervisor
from polynet_keras.launcher.job import Job

settings, constants = map(json.loads, sys.argv[1:])
for name in ("log_dir", "event_log"):
    settings[name] = settings.get(name) and pathlib.Path(settings[name])
for name, value in constants.items():
    setattr(supervisor, name, value)
settings["cluster"] = Cluster(*settings.get("cluster", ()))
settings["mistakes"] = frozenset(settings["mistakes"])
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # as in what a shell starts with `&`
    signal.signal(signal.SIGINT, signal.default_int_handler)
code = supervisor.supervise(Job(**settings))
try:
    os.waitpid(-1, os.WNOHANG)
    sys.exit("a child is left, if only as a zombie")
except ChildProcessError:
    pass
sys.exit(code)
"""

PREAMBLE = """
import json, os, signal, subprocess, sys, time
index = json.loads(os.environ["TF_CONFIG"])["task"]["index"]
attempt = int(os.environ["POLYNET_ATTEMPT"])
"""

FAST = {"BACK_OFF_SECONDS": (0.05, 0.1), "KILL_SECONDS": 0.5}


@dataclass(frozen=True)
class Ended:
    """What a job left: the launcher's exit code and output, and the lines of its event log."""

    code: int
    stdout: bytes
    stderr: str
    events: list[dict[str, Any]]

    def ends(self, attempt: int = 0) -> dict[int, int]:
        """The exit code of each worker."""
        found = [event for event in self.events if event["event"] == "end" and event["attempt"] == attempt]
        return {event["worker"]: event["code"] for event in found}

    def count(self, event: str) -> int:
        return sum(found["event"] == event for found in self.events)

    def seconds(self, first: str, then: str) -> float:
        """Between the first events of two kinds."""
        times = {event["event"]: event["time"] for event in reversed(self.events)}
        return times[then] - times[first]


class Launched:
    """A running job, as a context manager that leaves no process, whatever happens.

    Args:
        script: of the workers; it finds `index` and `attempt`. Or a whole command.
        folder: for the event log.
        constants: of the supervisor's module.
        options: of the launcher's `subprocess.Popen`.
        wrapper: what starts the launcher.
        settings: of the `Job`.
    """

    def __init__(
        self,
        script: str | Sequence[str],
        folder: Path,
        constants: dict[str, Any] | None = None,
        options: dict[str, Any] | None = None,
        wrapper: Sequence[str] = (),
        **settings: Any,
    ):
        command = [sys.executable, "-c", PREAMBLE + script] if isinstance(script, str) else list(script)
        self.event_log = folder / "events.jsonl"
        self.mark = f"{MARK}={folder}"
        job = {"command": command, "workers": 2, "mistakes": [2], "event_log": str(self.event_log), **settings}
        environment = {**os.environ, MARK: str(folder)}
        environment.pop("PYTHONUNBUFFERED", None)
        texts = [json.dumps(job), json.dumps({**FAST, **(constants or {})})]
        self.process = subprocess.Popen(
            [*wrapper, sys.executable, "-c", LAUNCHER, *texts],
            env=environment,
            stdin=subprocess.DEVNULL,
            **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "start_new_session": True, **(options or {})},
        )

    def __enter__(self) -> "Launched":
        return self

    def __exit__(self, *error) -> None:
        for process in [self.process.pid, *self.left()]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        self.process.wait()
        for pipe in (self.process.stdout, self.process.stderr):
            if pipe is not None:
                pipe.close()

    def end(self, timeout: float = 60) -> Ended:
        """Waits for the launcher's end."""
        stdout, stderr = self.process.communicate(timeout=timeout)
        return Ended(self.process.returncode, stdout or b"", (stderr or b"").decode(), self.events())

    def events(self) -> list[dict[str, Any]]:
        lines = self.event_log.read_text().splitlines() if self.event_log.exists() else []
        return [json.loads(line) for line in lines]

    def left(self) -> list[int]:
        """Processes of the job, wherever they are by now, but the launcher: they have inherited its mark."""
        found = []
        for entry in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if self.mark.encode() in (entry / "environ").read_bytes().split(b"\0"):
                    found.append(int(entry.name))
        return sorted(set(found) - {self.process.pid})


def run_job(script: str | Sequence[str], folder: Path, **settings: Any) -> Ended:
    """Runs a job to its end; nothing of it may be left."""
    with Launched(script, folder, **settings) as launched:
        ended = launched.end()
        assert launched.left() == []
        return ended
