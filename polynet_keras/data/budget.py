"""A limit for concurrent work whose pieces differ in memory by a factor of thousands."""

import contextlib
import threading
from collections.abc import Iterator


class Budget:
    """A budget that all threads share; a thread waits until others have released enough.

    An amount above the whole budget is reduced to it, and is held alone.
    """

    def __init__(self, total: int):
        self._total = self._free = total
        self._changed = threading.Condition()

    @contextlib.contextmanager
    def held(self, amount: int) -> Iterator[None]:
        amount = min(amount, self._total)
        with self._changed:
            self._changed.wait_for(lambda: amount <= self._free)
            self._free -= amount
        try:
            yield
        finally:
            with self._changed:
                self._free += amount
                self._changed.notify_all()
