"""How much may be in work at once, where one piece may take a thousand times another's memory."""

import contextlib
import threading
from collections.abc import Iterator


class Budget:
    """So much may be held at once by all threads; who wants more waits until others have given back.

    What is larger than the whole budget is held alone.
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
