"""Dynamic batching: inputs that arrive together go through the model together. It knows neither HTTP nor images."""

import asyncio
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress

import numpy as np

from polynet_keras.basics.names import number_of
from polynet_keras.deployment.serving.refusal import log_failure

SMOOTHING = 0.2
"""The share of the last batch in the running mean of the seconds that an input takes."""


class QueueFullError(Exception):
    """The queue has too few free places now; `seconds` estimates when it may have enough."""

    def __init__(self, limit: int, seconds: float):
        super().__init__(f"the queue is full: it takes {limit}")
        self.seconds = seconds


class BatchError(Exception):
    """The model failed on an input's batch. `failure` is the name of the failure in the log, which has the cause."""

    def __init__(self, reason: str, cause: BaseException | None = None):
        super().__init__(reason)
        self.__cause__ = cause
        self.failure = log_failure(reason, cause)


class Batcher:
    """Collects inputs into batches and runs a model on them, one batch at a time, in its own thread.

    A batch starts when `max_batch_size` inputs wait, or `max_delay` after the oldest of them came. This time also runs
    while the model is busy, so batches fill by themselves under load. An input whose waiter was cancelled leaves the
    queue. If the model raises, only the inputs of this batch fail.

    Make and use it inside one event loop.

    Args:
        run: maps inputs (batch, ...) to as many rows; called in the thread.
        max_batch_size: the largest number of inputs in a batch.
        max_delay: the longest time, in seconds, that an input waits for others.
        max_queue: the number of places for inputs, each taken from `admit` until the answer.
        on_batch: called after each batch with its size and the seconds that it took.
    """

    def __init__(
        self,
        run: Callable[[np.ndarray], np.ndarray],
        max_batch_size: int,
        max_delay: float,
        max_queue: int,
        on_batch: Callable[[int, float], None] = lambda size, seconds: None,
    ):
        self._run = run
        self._max_batch_size, self._max_delay, self._max_queue = max_batch_size, max_delay, max_queue
        self._on_batch = on_batch
        self._waiting: dict[asyncio.Future, tuple[np.ndarray, float]] = {}
        self._arrived = asyncio.Event()
        self._admitted = 0
        self._seconds = 0.0
        self._thread = ThreadPoolExecutor(1, "model")
        self._work: Future | None = None
        self._start = 0.0
        self._loop = asyncio.get_running_loop()
        self._task = self._loop.create_task(self._serve())

    @property
    def admitted(self) -> int:
        """The number of taken places."""
        return self._admitted

    @property
    def waiting(self) -> int:
        """The number of inputs that wait for a batch."""
        return len(self._waiting)

    @property
    def alive(self) -> bool:
        """Whether batches are processed: false after `close`, or after an unexpected fault."""
        return not self._task.done()

    @property
    def busy(self) -> bool:
        """Whether a batch is in the model."""
        return self._work is not None and not self._work.done()

    @property
    def busy_seconds(self) -> float:
        """How long the current batch has been in the model, in seconds; 0 if there is none."""
        return time.perf_counter() - self._start if self.busy else 0.0

    @property
    def expected_wait(self) -> float:
        """The estimated time, in seconds, to answer all admitted inputs."""
        return self._admitted * self._seconds

    @contextmanager
    def admit(self, count: int) -> Iterator[None]:
        """Takes `count` places for the duration of the context; the inputs may still be in preparation.

        Raises:
            QueueFullError: the queue has fewer free places.
        """
        self.check(count)
        self._admitted += count
        try:
            yield
        finally:
            self._admitted -= count

    def check(self, count: int) -> None:
        """Raises `QueueFullError` if the queue does not have `count` free places now."""
        if self._admitted + count > self._max_queue:
            raise QueueFullError(self._max_queue, self.expected_wait)

    async def submit(self, value: np.ndarray) -> np.ndarray:
        """Returns the model's row for one input. `admit` has taken its place.

        Raises:
            BatchError: the model failed.
        """
        future = self._loop.create_future()
        self._waiting[future] = value, self._loop.time()
        self._arrived.set()
        try:
            return await future
        finally:
            self._waiting.pop(future, None)

    async def close(self, seconds: float) -> None:
        """Stops batching and cancels all waiters. Waits at most `seconds` for a batch in the model."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        for future in list(self._waiting):
            future.cancel()
        self._thread.shutdown(wait=False)
        if self._work:
            await ended(self._work, seconds)

    async def _serve(self) -> None:
        while True:
            futures, values = await self._collect()
            self._start = time.perf_counter()
            self._work = self._thread.submit(self._compute, values)
            try:
                rows = await asyncio.wrap_future(self._work)
            except asyncio.CancelledError:
                for future in futures:
                    future.cancel()
                raise
            except Exception as error:
                failure = BatchError("the model failed on this batch", error)
                for future in futures:
                    if not future.done():
                        future.set_exception(failure)
                continue
            seconds = time.perf_counter() - self._start
            for future, row in zip(futures, rows, strict=True):
                if not future.done():
                    future.set_result(row)
            each = seconds / len(futures)
            self._seconds = each if not self._seconds else (1 - SMOOTHING) * self._seconds + SMOOTHING * each
            self._on_batch(len(futures), seconds)

    async def _collect(self) -> tuple[list[asyncio.Future], list[np.ndarray]]:
        while True:
            self._arrived.clear()
            for future in [future for future in self._waiting if future.done()]:
                del self._waiting[future]  # its waiter was cancelled, but has not run since
            if not self._waiting:
                await self._arrived.wait()
                continue
            oldest = next(iter(self._waiting.values()))[1]
            left = oldest + self._max_delay - self._loop.time()
            if left <= 0 or len(self._waiting) >= self._max_batch_size:
                break
            try:
                async with asyncio.timeout(left):
                    await self._arrived.wait()
            except TimeoutError:
                pass
        futures = list(self._waiting)[: self._max_batch_size]
        return futures, [self._waiting.pop(future)[0] for future in futures]

    def _compute(self, values: list[np.ndarray]) -> np.ndarray:
        rows = self._run(np.stack(values))
        if len(rows) != len(values):
            raise ValueError(f"the model returned {number_of(len(rows), 'row')} for {number_of(len(values), 'input')}")
        return rows


async def ended(work: Future, seconds: float) -> None:
    """Waits until a thread's work has ended, with or without an error, but at most `seconds`."""
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await asyncio.gather(asyncio.wrap_future(work), return_exceptions=True)
