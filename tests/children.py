"""Child processes for tests that do not import TensorFlow, Keras and this package again, which takes six seconds.

A server has imported them, and has used nothing of them: no thread runs in it, no device is known to it. Each child is
forked from it. To its test it is as a process that `subprocess.Popen` started, and to itself as `python FILE` or
`python -c TEXT`: it has arguments, an environment, a folder, output, a session and an end of its own.

What it can not be used for: whatever depends on the order of imports or is read while they go on, such as
`KERAS_BACKEND`, and what strings hash to, which differs between real processes and is the same in these.
"""

import atexit
import contextlib
import functools
import gc
import importlib
import json
import os
import selectors
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import types
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy

ROOT = Path(__file__).parents[1]
PRELOADED = (
    "tensorflow",
    "keras",
    "polynet_keras.cli.train",
    "polynet_keras.training.runs.train",
    "polynet_keras.deployment.serving.server",
    "polynet_keras.cluster.failures",
    "polynet_keras.engine.distributed_model",
    "polynet_keras.cluster.strategies",
)
READ_AT_IMPORT = {
    name: os.environ.get(name)
    for name in ("KERAS_BACKEND", "PYTHONPATH", "PYTHONWARNINGS", "TF_ENABLE_ONEDNN_OPTS", "TF_USE_LEGACY_KERAS")
}
NUMBER = struct.Struct("i")


class Child:
    """A forked process, with what tests use of `subprocess.Popen`.

    Args:
        script: a file, or the text of a program.
        arguments: what follows the program's name in `sys.argv`.
        env: set besides the environment of this process; a variable that is None is not there.
        stderr: `subprocess.PIPE`, or `STDOUT` for what comes with the output.
    """

    def __init__(
        self,
        script: str | Path,
        *arguments: str,
        env: Mapping[str, str | None] | None = None,
        cwd: str | Path | None = None,
        stderr: int = subprocess.PIPE,
    ):
        environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "2", **(env or {})}
        environment = {name: value for name, value in environment.items() if value is not None}
        for name, value in READ_AT_IMPORT.items():
            if environment.get(name) != value:
                raise ValueError(f"{name} is read before the fork: this needs a real process")
        request = {
            "script": str(script),
            "file": isinstance(script, Path),
            "arguments": list(arguments),
            "environment": environment,
            "cwd": str(cwd or Path.cwd()),
        }
        self.returncode: int | None = None
        out, out_of_child = os.pipe()
        self.stdout, self.stderr = os.fdopen(out), None
        descriptors = [out_of_child, out_of_child]
        if stderr == subprocess.PIPE:
            error, descriptors[1] = os.pipe()
            self.stderr = os.fdopen(error)
        self._channel, of_child = socket.socketpair()
        socket.send_fds(start_server(), [b"x"], [of_child.fileno(), *descriptors])
        _forked.set()
        of_child.close()
        for descriptor in set(descriptors):
            os.close(descriptor)
        self._channel.sendall(json.dumps(request).encode() + b"\n")
        self.pid = self._told()

    def _told(self) -> int:
        """A number from the server: which process it is, and then how that ended."""
        message = self._channel.recv(NUMBER.size)
        if not message:
            raise RuntimeError("the server of child processes has ended")
        return NUMBER.unpack(message)[0]

    def poll(self) -> int | None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.wait(0)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        if self.returncode is None:
            with selectors.DefaultSelector() as selector:
                selector.register(self._channel, selectors.EVENT_READ)
                if not selector.select(timeout):
                    raise subprocess.TimeoutExpired(f"child {self.pid}", timeout or 0.0)
            self.returncode = self._told()
            self._channel.close()
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def communicate(self, timeout: float | None = None) -> tuple[str, str | None]:
        """Reads all output, and waits for the end."""
        deadline = None if timeout is None else time.monotonic() + timeout
        streams = [stream for stream in (self.stdout, self.stderr) if stream is not None]
        texts: dict[int, str] = {}

        def read(index: int) -> None:
            texts[index] = streams[index].read()

        readers = [threading.Thread(target=read, args=[index], daemon=True) for index in range(len(streams))]
        for reader in readers:
            reader.start()
        for reader in readers:
            reader.join(deadline and max(0.0, deadline - time.monotonic()))
            if reader.is_alive():
                raise subprocess.TimeoutExpired(f"child {self.pid}", timeout or 0.0)
        self.wait(deadline and max(0.0, deadline - time.monotonic()))
        for stream in streams:
            stream.close()
        return texts[0], texts.get(1)

    def end(self) -> None:
        """Kills it where it still runs."""
        self.kill()
        self.wait()
        for stream in (self.stdout, self.stderr):
            if stream is not None:
                stream.close()


def run(script: str | Path, *arguments: str, timeout: float = 120, **options) -> subprocess.CompletedProcess[str]:
    """Runs a child to its end, as `subprocess.run` does with all output captured."""
    child = Child(script, *arguments, **options)
    try:
        out, err = child.communicate(timeout)
    finally:
        child.end()
    return subprocess.CompletedProcess([str(script), *arguments], child.wait(), out, err)


_forked = threading.Event()
"""Whether there was a child."""


@functools.cache
def start_server() -> socket.socket:
    """Starts the server of this process's children, once. It ends with this process, however that ends."""
    ours, theirs = socket.socketpair()
    with theirs:
        process = subprocess.Popen(
            [sys.executable, "-c", f"from tests.children import serve; serve({theirs.fileno()}, {PRELOADED})"],
            cwd=ROOT,
            env={**os.environ, **{name: value for name, value in READ_AT_IMPORT.items() if value is not None}},
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            start_new_session=True,
        )

    def end() -> None:
        ours.close()
        if not _forked.is_set():
            process.kill()  # it may still be importing
        process.wait(30)

    atexit.register(end)
    return ours


def serve(descriptor: int, preloaded: Sequence[str]) -> None:
    """Forks a child for each message, of which it hands on the descriptors, and tells its number and how it ended.

    It returns in children only, when their program has ended.
    """
    for module in preloaded:
        with contextlib.suppress(ModuleNotFoundError):  # of an extra; the child that needs it will say so
            importlib.import_module(module)
    gc.freeze()
    control = socket.socket(fileno=descriptor)
    woken, wakes = socket.socketpair()
    for one in (woken, wakes):
        one.setblocking(False)
    signal.set_wakeup_fd(wakes.fileno())
    signal.signal(signal.SIGCHLD, lambda *_: None)
    children: dict[int, socket.socket] = {}
    selector = selectors.DefaultSelector()
    selector.register(control, selectors.EVENT_READ)
    selector.register(woken, selectors.EVENT_READ)
    while True:
        ready = {key.fileobj for key, _ in selector.select()}
        if woken in ready:
            woken.recv(4096)
            while children and (ended := os.waitpid(-1, os.WNOHANG))[0]:
                pid, status = ended
                with children.pop(pid) as channel, contextlib.suppress(BrokenPipeError):
                    channel.sendall(NUMBER.pack(os.waitstatus_to_exitcode(status)))
        if control in ready:
            message, descriptors, _, _ = socket.recv_fds(control, 1, 3)
            if not message:
                for pid in children:
                    with contextlib.suppress(ProcessLookupError):
                        os.killpg(pid, signal.SIGKILL)
                    os.kill(pid, signal.SIGKILL)  # it may not have its session yet
                    os.waitpid(pid, 0)
                sys.exit()
            channel, *outputs = descriptors
            pid = os.fork()
            if not pid:
                break
            for output in outputs:
                os.close(output)
            children[pid] = socket.socket(fileno=channel)
            with contextlib.suppress(BrokenPipeError):
                children[pid].sendall(NUMBER.pack(pid))

    os.setsid()
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    selector.close()
    for one in (control, woken, wakes, *children.values()):
        one.close()
    for number, output in enumerate(outputs, start=1):
        os.dup2(output, number)
        os.close(output)
    with socket.socket(fileno=channel) as connection, connection.makefile("r") as lines:
        request = json.loads(lines.readline())
    _become(request)


def _become(request: dict) -> None:
    os.environ.clear()
    os.environ.update(request["environment"])
    os.chdir(request["cwd"])
    script = request["script"]
    main = types.ModuleType("__main__")
    if request["file"]:
        main.__file__ = name = script
        script = Path(name).read_text()
        sys.path[0] = str(Path(name).parent)
    else:
        name = "-c"
        sys.path[0] = ""
    sys.argv = [name, *request["arguments"]]
    sys.modules["__main__"] = main
    numpy.random.seed()  # noqa: NPY002 - draws of two processes differ; those of `random` do after each fork
    exec(compile(script, name, "exec"), main.__dict__)
