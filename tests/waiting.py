"""Waits with a deadline, for tests."""

import time
from collections.abc import Callable


def wait_until(condition: Callable[[], object], what: str = "it happens", seconds: float = 30.0) -> None:
    """Waits until the condition holds; fails if it does not within so many seconds, and says `what` did not happen."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"{what}: not within {seconds:g} s"
        time.sleep(0.002)
