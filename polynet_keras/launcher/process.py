"""A worker as a process: starts it, and makes sure that none of its processes is left when it has exited."""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Collection, Mapping, Sequence
from typing import IO

from polynet_keras.basics.exits import EXIT_RESTART

STARTER = (
    f"EXIT_RESTART = {EXIT_RESTART}"
    + """
import ctypes, os, signal, sys
parent, cores, *command = sys.argv[1:]
signal.signal(signal.SIGPIPE, signal.SIG_DFL)
signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
ctypes.CDLL(None).prctl(1, signal.SIGKILL)
if os.getppid() != int(parent):
    os._exit(EXIT_RESTART)
if cores:
    os.sched_setaffinity(0, map(int, cores.split(",")))
try:
    os.execvp(command[0], command)
except OSError as error:
    print(f"polynet: {command[0]} cannot be run: {error.strerror}", file=sys.stderr)
    os._exit(2)
"""
)
"""On Linux a process runs this program before it becomes the worker: 1 is PR_SET_PDEATHSIG. It is a program and not a
function between fork and exec, which a process with threads must not have."""


class WorkerProcess:
    """Starts a worker in its own session: Ctrl-C on the terminal does not reach it.

    On Linux the worker is killed when this process ends for any reason. The thread that starts it must live as long as
    the worker.

    Args:
        command: a program and its arguments.
        environment: the worker's environment.
        cores: the cores that it may use; by default those of this process. Linux only.
        own_stdout: whether it writes to a pipe, or to this process's standard output.

    Attributes:
        stdout: the pipe of its standard output, or None.
        stderr: the pipe of its standard error.

    Raises:
        OSError: no process can be started.
    """

    def __init__(
        self,
        command: Sequence[str],
        environment: Mapping[str, str],
        cores: Collection[int] | None = None,
        own_stdout: bool = True,
    ):
        if sys.platform == "linux":
            share = ",".join(map(str, sorted(cores or ())))
            command = [sys.executable, "-I", "-S", "-c", STARTER, str(os.getpid()), share, *command]
        self._process = subprocess.Popen(
            list(command),
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE if own_stdout else None,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        self.stdout: IO[bytes] | None = self._process.stdout
        self.stderr: IO[bytes] | None = self._process.stderr

    @property
    def pid(self) -> int:
        return self._process.pid

    def poll(self) -> int | None:
        """Returns the exit code, negative for a signal, or None while it runs. Kills processes that it left running."""
        if self._process.returncode is None and self._has_ended():
            self.send(signal.SIGKILL)
            self._process.wait()
        return self._process.returncode

    def send(self, number: int) -> None:
        """Sends a signal to the worker and its children, such as the program that a shell script waits for."""
        with contextlib.suppress(
            ProcessLookupError, PermissionError
        ):  # macOS: a process that is gone on Linux is forbidden there
            os.killpg(self.pid, number)

    def kill(self) -> None:
        """Kills the worker if it still runs."""
        if self._process.returncode is None:
            self.send(signal.SIGKILL)
            self._process.wait()

    def _has_ended(self) -> bool:
        """Checks without collecting the exit code, if possible: until then the process's number stays reserved."""
        if hasattr(os, "waitid"):
            return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
        return self._process.poll() is not None
