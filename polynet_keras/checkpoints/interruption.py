"""A request to stop: SIGTERM, which a machine gets before it is taken away, handled between two training steps."""

import os
import signal
import threading
from collections.abc import Callable
from types import FrameType

from polynet_keras.basics.exits import Restart
from polynet_keras.checkpoints.position import Position


class Preempted(Restart):
    """Training stopped because the process got SIGTERM: a `SystemExit` with code 75.

    Attributes:
        position: where training stopped.
        saved: whether a checkpoint of that position is on disk. If not, there may be an older one.
    """

    def __init__(self, position: Position, saved: bool = True):
        super().__init__()
        self.position = position
        self.saved = saved

    def __str__(self) -> str:
        place = f"epoch {self.position.epoch + 1}, step {self.position.step}"
        return f"stopped at {place}, which is {'saved' if self.saved else 'not saved'}"


class Interruption:
    """Listens to SIGTERM, as a context manager, and remembers it instead of ending the process.

        with Interruption() as interruption:
            for batch in batches:
                train(batch)
                if interruption.requested:
                    ...

    Only the main thread can listen; in another thread this class has no effect. A second SIGTERM goes to the handler
    that was set before, which by default ends the process. At the end of the block, a request that came too late to be
    followed goes there too. Python handles a signal when the running operation of TensorFlow is over.

    Attributes:
        requested: this process got SIGTERM.
        agreed: all workers of a strategy know, since the same step, that one got it. The code that makes them agree
            sets it.
        followed: the code that stopped because of the request sets it.
    """

    def __init__(self):
        self.requested = False
        self.agreed = False
        self.followed = False
        self._former: Callable | int | None = None

    def __enter__(self) -> "Interruption":
        # A handler that was not installed from Python could not be restored.
        if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGTERM) is not None:
            self._former = signal.signal(signal.SIGTERM, self._hear)
        return self

    def __exit__(self, *exception) -> None:
        """Restores the former handler, unless other code has replaced this one since."""
        if self._former is None or threading.current_thread() is not threading.main_thread():
            return
        if signal.getsignal(signal.SIGTERM) == self._hear:
            signal.signal(signal.SIGTERM, self._former)
        former, self._former = self._former, None
        if self.requested and not self.followed:
            self._pass_on(former, signal.SIGTERM, None)

    def _hear(self, number: int, frame: FrameType | None) -> None:
        if self.requested:
            self._pass_on(self._former, number, frame)
        self.requested = True

    def _pass_on(self, former: Callable | int | None, number: int, frame: FrameType | None) -> None:
        if callable(former):
            former(number, frame)
        elif former == signal.SIG_DFL:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
