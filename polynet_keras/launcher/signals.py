"""The signals that stop the launcher."""

import signal
import time

POLL_SECONDS = 0.05


class Signals:
    """Records SIGTERM, SIGHUP and SIGINT inside the block.

    Attributes:
        received: the first one; SIGHUP counts as SIGTERM.
        again: whether Ctrl-C was pressed after that.
    """

    def __init__(self):
        self.received: signal.Signals | None = None
        self.again = False

    def __enter__(self) -> "Signals":
        self._before = {}
        for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
            if signal.getsignal(number) != signal.SIG_IGN:
                self._before[number] = signal.signal(number, self._receive)
        return self

    def __exit__(self, *error) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _receive(self, number: int, frame) -> None:
        if self.received is not None:
            self.again = self.again or number == signal.SIGINT
        else:
            self.received = signal.SIGINT if number == signal.SIGINT else signal.SIGTERM

    def wait(self, seconds: float) -> None:
        """Waits `seconds`, or until a signal comes."""
        end = time.monotonic() + seconds
        while self.received is None and time.monotonic() < end:
            time.sleep(POLL_SECONDS)
