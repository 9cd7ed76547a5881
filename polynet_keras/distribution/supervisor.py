"""Starts the workers of a job on this machine, and starts all of them again when one fails.

Needs no TensorFlow, and nothing of the workers but that they read TF_CONFIG and end with the exit codes of
`docs/distribution.md`.
"""

import contextlib
import ctypes
import json
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from absl import logging

EXIT_MISTAKE, EXIT_RESTART, EXIT_INTERRUPTED = 1, 75, 130
BACK_OFF_SECONDS = (1.0, 30.0)
"""Before a restart: the first and the longest pause; each is twice the one before."""
KILL_SECONDS = 5.0
"""Between SIGTERM and SIGKILL for a worker that should have noticed the failure of another."""
FINISH_SECONDS = 600.0
"""For the other workers to end after one has ended well: the chief may still be writing."""
POLL_SECONDS = 0.1


@dataclass(frozen=True)
class Job:
    """Processes that train together.

    Attributes:
        command: of each worker.
        workers: how many.
        max_restarts: how often all of them are started again, in all.
        grace_seconds: for a worker to end by itself, after another failed or after it was told to.
        mistakes: exit codes after which there is no restart.
        pin: whether each worker gets a share of the cores of its own.
        log_dir: for a file of each worker's output and attempt.
        event_log: JSON lines of what happens, appended.
    """

    command: Sequence[str]
    workers: int
    max_restarts: int = 3
    grace_seconds: float = 30.0
    mistakes: frozenset[int] = frozenset()
    pin: bool = False
    log_dir: Path | None = None
    event_log: Path | None = None

    def __post_init__(self):
        if self.workers < 1:
            raise ValueError(f"workers={self.workers} must be at least 1")
        if self.max_restarts < 0:
            raise ValueError(f"max_restarts={self.max_restarts} must be at least 0")
        if not 0 < self.grace_seconds < float("inf"):
            raise ValueError(f"grace_seconds={self.grace_seconds} must be a finite number > 0")
        if self.pin and self.workers > len(cores()):
            raise ValueError(f"{self.workers} workers cannot have cores of their own: there are {len(cores())}")


def supervise(job: Job) -> int:
    """Runs a job to its end.

    Returns:
        The exit code: 0; 1 after a mistake of the user's; 75 where the job can be started again and goes on, and was
        told to end (SIGTERM) or has no restarts left; 130 after Ctrl-C; else that of the worker that failed.
    """
    with _Signals() as signals, _Events(job.event_log) as events:
        for attempt in range(job.max_restarts + 1):
            ends = _Attempt(job, attempt, signals, events).run()
            if signals.received is not None:
                events.write("stopped", attempt=attempt, signal=signals.received.name)
                return EXIT_INTERRUPTED if signals.received == signal.SIGINT else EXIT_RESTART
            failed = _first_cause(ends)
            if failed is None:
                events.write("done", attempt=attempt)
                return 0
            what = f"worker {failed.worker} {failed.how}"
            if failed.code in job.mistakes:
                events.write("failed", attempt=attempt, worker=failed.worker, code=failed.code)
                logging.error("%s: a mistake that a restart would not mend", what)
                return EXIT_MISTAKE
            if attempt < job.max_restarts:
                pause = min(BACK_OFF_SECONDS[0] * 2**attempt, BACK_OFF_SECONDS[1])
                logging.warning("%s; restart %d of %d in %g s", what, attempt + 1, job.max_restarts, pause)
                events.write("restart", attempt=attempt + 1, worker=failed.worker, code=failed.code)
                signals.wait(pause)
                if signals.received is not None:
                    return EXIT_INTERRUPTED if signals.received == signal.SIGINT else EXIT_RESTART
            else:
                logging.error("%s, and %d restarts are used up", what, job.max_restarts)
                events.write("failed", attempt=attempt, worker=failed.worker, code=failed.code)
                return failed.code if failed.code > 0 else 128 - failed.code
    raise AssertionError("the last attempt returns")


def cores() -> list[int]:
    """The cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


@dataclass(frozen=True)
class _End:
    """How a worker ended: `code` is negative for a signal; `by_us` where it was killed for another's failure."""

    worker: int
    code: int
    by_us: bool

    @property
    def how(self) -> str:
        return f"was killed by {signal.Signals(-self.code).name}" if self.code < 0 else f"ended with {self.code}"


def _first_cause(ends: list[_End]) -> _End | None:
    """The failure that the others follow from: those that name another's as their reason end with 75."""
    failed = [end for end in ends if end.code != 0]
    causes = [end for end in failed if end.code != EXIT_RESTART and not end.by_us]
    return next(iter([*causes, *failed]), None)


class _Attempt:
    """All workers from their start to their end."""

    def __init__(self, job: Job, number: int, signals: "_Signals", events: "_Events"):
        self._job, self._number, self._signals, self._events = job, number, signals, events
        self._ended: queue.Queue[tuple[int, int]] = queue.Queue()
        self._ends: list[_End] = []
        self._processes: list[subprocess.Popen] = []
        self._readers: list[threading.Thread] = []
        self._told: set[int] = set()  # by us, to end for another's failure

    def run(self) -> list[_End]:
        """Returns how they ended, in this order."""
        self._start()
        deadline, escalation = None, [signal.SIGTERM, signal.SIGKILL]
        while len(self._ends) < self._job.workers:
            with contextlib.suppress(queue.Empty):
                self._note(*self._ended.get(timeout=POLL_SECONDS))
            now = time.monotonic()
            if self._signals.received is not None and not self._told:
                # Told to end, they save, which takes its time; then they are killed.
                self._send(self._signals.received)
                deadline, escalation = now + self._job.grace_seconds, [signal.SIGKILL]
            elif deadline is None and any(end.code for end in self._ends):
                deadline = now + self._job.grace_seconds
            elif deadline is None and self._ends:
                deadline = now + FINISH_SECONDS
            elif deadline is not None and any(end.code for end in self._ends):
                deadline = min(deadline, now + self._job.grace_seconds)
            if deadline is not None and now > deadline and escalation:
                self._send(escalation.pop(0))
                deadline = now + KILL_SECONDS
        for reader in self._readers:
            reader.join(timeout=2.0)  # a process that a worker left behind may hold its output open
        return self._ends

    def _start(self) -> None:
        job = self._job
        addresses = [f"127.0.0.1:{port}" for port in _free_ports(job.workers)]
        for worker in range(job.workers):
            task = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": worker}}
            environment = dict(os.environ, TF_CONFIG=json.dumps(task), POLYNET_ATTEMPT=str(self._number))
            # The chief has the terminal, if there is one: its progress bar needs it.
            direct = worker == 0 and job.log_dir is None
            process = subprocess.Popen(
                list(job.command),
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=None if direct else subprocess.PIPE,
                stderr=None if direct else subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C comes from here, once
                preexec_fn=_child_setup(_share(worker, job.workers) if job.pin else None),
            )
            self._events.write("start", attempt=self._number, worker=worker, pid=process.pid)
            self._processes.append(process)
            if not direct:
                self._read(worker, process)
            threading.Thread(target=self._wait_for, args=(worker, process), daemon=True).start()

    def _wait_for(self, worker: int, process: subprocess.Popen) -> None:
        self._ended.put((worker, process.wait()))

    def _read(self, worker: int, process: subprocess.Popen) -> None:
        log = None
        if self._job.log_dir is not None:
            self._job.log_dir.mkdir(parents=True, exist_ok=True)
            log = open(self._job.log_dir / f"worker-{worker}-attempt-{self._number}.log", "wb")  # noqa: SIM115
        prefix = b"" if worker == 0 else f"[worker {worker}] ".encode()
        reader = threading.Thread(target=_forward, args=(process.stdout, prefix, log), daemon=True)
        reader.start()
        self._readers.append(reader)

    def _note(self, worker: int, code: int) -> None:
        end = _End(worker, code, worker in self._told)
        self._ends.append(end)
        self._events.write("end", attempt=self._number, worker=worker, code=code)

    def _send(self, number: signal.Signals) -> None:
        """To all that still run, with what they started."""
        ended = {end.worker for end in self._ends}
        for worker, process in enumerate(self._processes):
            if worker not in ended:
                self._told.add(worker)
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, number)


class _Signals:
    """SIGTERM and SIGINT, remembered while inside."""

    received: signal.Signals | None = None

    def __enter__(self) -> "_Signals":
        self._before = {number: signal.signal(number, self._receive) for number in (signal.SIGTERM, signal.SIGINT)}
        return self

    def __exit__(self, *error) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _receive(self, number: int, frame) -> None:
        self.received = self.received or signal.Signals(number)

    def wait(self, seconds: float) -> None:
        """For so long, or until a signal comes."""
        end = time.monotonic() + seconds
        while self.received is None and time.monotonic() < end:
            time.sleep(POLL_SECONDS)


class _Events:
    """Appends JSON lines to a file, if there is one."""

    def __init__(self, path: Path | None):
        self._path = path

    def __enter__(self) -> "_Events":
        self._file = open(self._path, "a") if self._path is not None else None
        return self

    def __exit__(self, *error) -> None:
        if self._file is not None:
            self._file.close()

    def write(self, event: str, **values: Any) -> None:
        if self._file is not None:
            print(json.dumps({"time": time.time(), "event": event, **values}), file=self._file, flush=True)


def _forward(source: IO[bytes], prefix: bytes, log: IO[bytes] | None) -> None:
    """A worker's output to this process's, whole lines of a prefix at a time, and as it is to a log."""
    target = sys.stdout.buffer
    with contextlib.ExitStack() as stack:
        stack.enter_context(source)
        if log is not None:
            stack.enter_context(log)
        for chunk in _chunks(source, lines=bool(prefix)):
            if log is not None:
                log.write(chunk)
                log.flush()
            with _OUTPUT:
                target.write(prefix + chunk)
                target.flush()


_OUTPUT = threading.Lock()


def _chunks(source: IO[bytes], lines: bool) -> Iterator[bytes]:
    if not lines:
        yield from iter(lambda: os.read(source.fileno(), 1 << 16), b"")
        return
    for line in source:
        yield line if line.endswith(b"\n") else line + b"\n"


def _free_ports(count: int) -> list[int]:
    """Ports that nobody had a moment ago. If one is taken before its worker has it, all workers are started again."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [server.getsockname()[1] for server in sockets]


def _share(worker: int, workers: int) -> set[int]:
    """A worker's part of the cores."""
    mine = cores()
    return set(mine[len(mine) * worker // workers : len(mine) * (worker + 1) // workers])


def _child_setup(share: set[int] | None) -> Callable[[], None]:
    """What a worker does between fork and exec; all that it needs is made before."""
    parent = os.getpid()
    libc = ctypes.CDLL(None) if sys.platform == "linux" else None

    def setup() -> None:
        if libc is not None:
            libc.prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG: it does not outlive this process
            if os.getppid() != parent:
                os._exit(EXIT_RESTART)
        if share is not None and hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(0, share)

    return setup
