"""Starts the workers of a job on this machine, and restarts all of them when one fails.

It imports neither Keras nor TensorFlow; `polynet launch` does, to check the flags of `train`. The workers must only
read TF_CONFIG and exit with the codes of `docs/distribution.md`. Restarts work as in torchrun: all workers together,
with one limit for the whole job, whatever its progress.
"""

import contextlib
import enum
import math
import os
import secrets
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from absl import logging

from polynet_keras.basics.exits import EXIT_INTERRUPTED, EXIT_MISTAKE, EXIT_RESTART
from polynet_keras.cluster.gpus import GPUS_VARIABLE
from polynet_keras.cluster.loopback import keras_variables, loopback_addresses, tf_config
from polynet_keras.cluster.signed_lines import SECRET_VARIABLE
from polynet_keras.launcher.event_log import EventLog
from polynet_keras.launcher.job import Job, cores
from polynet_keras.launcher.output import Target, WorkerOutput
from polynet_keras.launcher.process import WorkerProcess
from polynet_keras.launcher.signals import POLL_SECONDS, Signals

BACK_OFF_SECONDS = (1.0, 30.0)
"""The first and the longest pause before a restart; each pause is twice the one before."""
KILL_SECONDS = 5.0
"""The time between SIGTERM and SIGKILL for a worker that should have exited by itself."""
FINISH_SECONDS = 600.0
"""The time for the other workers to exit after one has exited with 0: the chief may still be writing its model."""
READ_SECONDS = 2.0
"""The time to show the last lines after a signal to stop."""

T = TypeVar("T")


def supervise(job: Job) -> int:
    """Runs a job to its end. Call it in the main thread, which handles the signals.

    SIGTERM and SIGHUP end the workers with SIGTERM, SIGINT (Ctrl-C) with SIGINT, and a second Ctrl-C kills them. A
    signal that this process ignores (`nohup`) stays ignored.

    Returns:
        The exit code: 0; 1 after a mistake of the user; 75 if the job can be started again and will resume: it was
        signalled to stop, or no restarts are left and the last failure was of that kind; 130 after Ctrl-C; else the
        code of the worker that failed first in the last attempt, 128 plus the number for a signal.

    Raises:
        OSError: a log cannot be written, or no process can be started; no worker is left.
    """
    if job.log_dir is not None:
        job.log_dir.mkdir(parents=True, exist_ok=True)
    with EventLog(job.event_log) as events, Signals() as signals:
        code = _run(job, signals, events)
        events.write("done", code=code)
        return code


def _run(job: Job, signals: Signals, events: EventLog) -> int:
    for attempt in range(job.max_restarts + 1):
        ends = _Attempt(job, attempt, signals, events).run()
        failed = _first_cause(ends)
        if failed is None and signals.received != signal.SIGINT:
            return 0
        if signals.received is not None:
            return _stopped(signals.received)
        assert failed is not None
        what = f"worker {failed.worker} {failed.how}"
        if failed.exit_code == EXIT_INTERRUPTED:
            logging.error("%s: interrupted", what)
            return EXIT_INTERRUPTED
        if failed.exit_code in job.mistakes:
            said = failed.output.last_line or "it wrote nothing"
            logging.error("%s, and a restart would not fix that: %s", what, said)
            return EXIT_MISTAKE
        if attempt == job.max_restarts:
            logging.error("%s; no restart is left of %d", what, job.max_restarts)
            return failed.exit_code
        pause = min(BACK_OFF_SECONDS[0] * 2 ** min(attempt, 10), BACK_OFF_SECONDS[1])
        logging.warning("%s; restart %d of %d in %g s", what, attempt + 1, job.max_restarts, pause)
        events.write("restart", attempt=attempt + 1, worker=failed.worker, code=failed.code, seconds=pause)
        signals.wait(pause)
        if signals.received is not None:
            return _stopped(signals.received)
    raise AssertionError("the last attempt returns")


def _stopped(received: signal.Signals) -> int:
    logging.warning("stopped by %s", received.name)
    return EXIT_INTERRUPTED if received == signal.SIGINT else EXIT_RESTART


@dataclass(frozen=True)
class _End:
    """The exit of a worker: `code` is negative for a signal; `by_us` if this process ended it because it hung."""

    worker: int
    code: int
    by_us: bool
    output: WorkerOutput

    @property
    def how(self) -> str:
        how = f"was killed by {_signal_name(self.code)}" if self.code < 0 else f"exited with {self.code}"
        return f"did not exit by itself and {how}" if self.by_us else how

    @property
    def exit_code(self) -> int:
        """The exit code as a shell reports it; a worker that hung may succeed after a restart."""
        if self.by_us:
            return EXIT_RESTART
        return self.code if self.code >= 0 else 128 - self.code


def _signal_name(code: int) -> str | None:
    """Returns the name of the signal that ended a process with this code, if it was a signal."""
    if code >= 0:
        return None
    try:
        return signal.Signals(-code).name
    except ValueError:  # most real-time signals have no name
        return f"signal {-code}"


def _first_cause(ends: Sequence[_End]) -> _End | None:
    """Returns the failure that caused the others, or None if there is none.

    First comes a worker that failed by itself, then one that had to be killed: the others exit with 75 because that one
    does not answer.
    """
    failed = [end for end in ends if end.code != 0]
    causes = [end for end in failed if end.code != EXIT_RESTART and not end.by_us]
    hung = [end for end in failed if end.by_us]
    return next(iter([*causes, *hung, *failed]), None)


class _State(enum.IntEnum):
    """The state of an attempt; it only rises."""

    RUNNING = 0
    FINISHING = 1
    FAILED = 2
    STOPPING = 3
    KILLING = 4


class _Attempt:
    """All workers from their start to their end."""

    def __init__(self, job: Job, number: int, signals: Signals, events: EventLog):
        self._job, self._number, self._signals, self._events = job, number, signals, events
        self._ends: list[_End] = []
        self._processes: dict[int, WorkerProcess] = {}
        self._outputs: dict[int, WorkerOutput] = {}
        self._told: set[int] = set()
        """Workers that got a signal from this process because they had not exited."""

    def run(self) -> list[_End]:
        """Returns the workers' exits in the order in which they happened. No worker is left, whatever happens."""
        with contextlib.ExitStack() as stack:
            stack.callback(self._kill)
            addresses = self._job.cluster.workers
            self._start(addresses or stack.enter_context(loopback_addresses(self._job.workers)))
            self._wait()
            self._read_all()
        return self._ends

    def _start(self, addresses: Sequence[str]) -> None:
        job, out, err = self._job, Target(sys.stdout.fileno()), Target(sys.stderr.fileno())
        common = {
            "PYTHONUNBUFFERED": "1",  # into a pipe, Python would write only full pages
            **os.environ,
            "POLYNET_ATTEMPT": str(self._number),
        }
        if job.cluster.workers:  # the other machines' launchers have the same secret, or none
            common["POLYNET_ATTEMPT"] = str(int(os.environ.get("POLYNET_ATTEMPT") or 0) + self._number)
        else:
            # One for each attempt: remains of the last one cannot meet these workers.
            common[SECRET_VARIABLE] = secrets.token_hex(32)
        for place, worker in enumerate(job.indices):
            environment = {**common, "TF_CONFIG": tf_config(addresses, worker), **keras_variables(addresses, worker)}
            if job.gpus:
                environment[GPUS_VARIABLE] = ",".join(_share(job.gpus, place, job.workers))
            # The chief has the terminal, if there is one: its progress bar needs it.
            direct = worker == 0 and job.log_dir is None and os.isatty(sys.stdout.fileno())
            share = _share(cores(), place, job.workers) if job.pin else None
            process = WorkerProcess(job.command, environment, share, own_stdout=not direct)
            self._processes[worker] = process
            self._events.write("start", attempt=self._number, worker=worker, pid=process.pid)
            log = None if job.log_dir is None else job.log_dir / f"worker-{worker}-attempt-{self._number}.log"
            pipes = [(process.stdout, out), (process.stderr, err)]
            prefix = b"" if worker == 0 else f"[worker {worker}] ".encode()
            output = WorkerOutput([(pipe, to) for pipe, to in pipes if pipe is not None], prefix, log)
            output.start()
            self._outputs[worker] = output

    def _wait(self) -> None:
        state, deadline, steps = _State.RUNNING, math.inf, []
        grace = self._job.grace_seconds
        while len(self._ends) < self._job.workers:
            time.sleep(POLL_SECONDS)
            self._note_ends()
            now = time.monotonic()
            if self._state() > state:
                state = self._state()
                deadline, steps = now + grace, [signal.SIGTERM, signal.SIGKILL]
                if state == _State.FINISHING:
                    deadline = now + max(grace, FINISH_SECONDS)
                elif state == _State.STOPPING and self._signals.received is not None:
                    self._send(self._signals.received)  # they save, which takes time
                    steps = [signal.SIGKILL]
                elif state == _State.KILLING:
                    deadline, steps = now, [signal.SIGKILL]
            if now >= deadline and steps:
                self._told |= self._running() if state < _State.STOPPING else set()
                self._send(steps.pop(0))
                deadline = now + KILL_SECONDS

    def _state(self) -> _State:
        if self._signals.received is not None:
            return _State.KILLING if self._signals.again else _State.STOPPING
        if any(end.code for end in self._ends):
            return _State.FAILED
        return _State.FINISHING if self._ends else _State.RUNNING

    def _running(self) -> set[int]:
        return set(self._job.indices) - {end.worker for end in self._ends}

    def _note_ends(self) -> None:
        for worker in sorted(self._running()):
            code = self._processes[worker].poll()
            if code is None:
                continue
            self._outputs[worker].end()
            self._ends.append(_End(worker, code, worker in self._told, self._outputs[worker]))
            self._events.write("end", attempt=self._number, worker=worker, code=code, signal=_signal_name(code))

    def _kill(self) -> None:
        for process in self._processes.values():
            process.kill()

    def _read_all(self) -> None:
        """Waits until all output of the workers is shown; after a signal to stop, it does not wait for slow readers."""
        deadline = math.inf
        for output in self._outputs.values():
            while not output.is_read(POLL_SECONDS) and time.monotonic() < deadline:
                if self._signals.received is not None:
                    deadline = min(deadline, time.monotonic() + READ_SECONDS)

    def _send(self, number: signal.Signals) -> None:
        running = sorted(self._running())
        self._events.write("signal", attempt=self._number, signal=number.name, workers=running)
        for worker in running:
            self._processes[worker].send(number)


def _share(parts: Sequence[T], place: int, workers: int) -> Sequence[T]:
    """Returns a worker's part of the cores or GPUs."""
    return parts[len(parts) * place // workers : len(parts) * (place + 1) // workers]
