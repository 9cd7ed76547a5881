"""A side of a benchmark: a process of its own that holds one network and is asked for its rounds."""

import multiprocessing
from collections.abc import Callable
from typing import Any


class SideProcess:
    """Runs `target(connection, *arguments)` in a new process.

    Attributes:
        text: what the command line calls the side.
    """

    def __init__(self, text: str, target: Callable, *arguments):
        self.text = text
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=target, args=(theirs, *arguments), daemon=True)
        self.process.start()
        theirs.close()  # so that a worker that dies is an EOFError here, not a wait without end

    def ask(self, request: Any) -> None:
        self.connection.send(request)

    def answer(self, seconds: float | None = None) -> Any:
        """Waits for the next answer.

        Raises:
            EOFError: the process died.
            TimeoutError: there was no answer within `seconds`.
        """
        if not self.connection.poll(seconds):
            raise TimeoutError
        return self.connection.recv()
