import os
import signal
import threading

import pytest

from polynet_keras.checkpoints.interruption import Interruption, Preempted
from polynet_keras.checkpoints.position import Position


@pytest.fixture
def heard():
    """The signals that the handler of before got."""
    signals = []
    former = signal.signal(signal.SIGTERM, lambda number, frame: signals.append(number))
    yield signals
    signal.signal(signal.SIGTERM, former)


def test_the_first_signal_is_remembered_and_the_second_passed_on(heard):
    with Interruption() as interruption:
        assert not interruption.requested
        os.kill(os.getpid(), signal.SIGTERM)
        assert interruption.requested
        assert not interruption.agreed
        assert heard == []
        os.kill(os.getpid(), signal.SIGTERM)
        assert heard == [signal.SIGTERM]
        interruption.followed = True
    assert heard == [signal.SIGTERM]
    os.kill(os.getpid(), signal.SIGTERM)
    assert heard == 2 * [signal.SIGTERM]


def test_a_request_that_nobody_followed_is_passed_on_at_the_end(heard):
    with Interruption():
        os.kill(os.getpid(), signal.SIGTERM)
        assert heard == []
    assert heard == [signal.SIGTERM]


def test_the_default_handler_ends_the_process():
    pid = os.fork()
    if not pid:
        signal.alarm(20)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        with Interruption():
            os.kill(os.getpid(), signal.SIGTERM)
        os._exit(3)
    assert os.WTERMSIG(os.waitpid(pid, 0)[1]) == signal.SIGTERM


def test_an_ignored_signal_stays_ignored():
    former = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        with Interruption() as interruption:
            os.kill(os.getpid(), signal.SIGTERM)
            assert interruption.requested
        assert signal.getsignal(signal.SIGTERM) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGTERM, former)


def test_an_error_puts_the_handler_back(heard):
    with pytest.raises(ZeroDivisionError), Interruption():
        1 / 0  # noqa: B018
    os.kill(os.getpid(), signal.SIGTERM)
    assert heard == [signal.SIGTERM]


def test_a_handler_that_came_later_stays(heard):
    later = []
    with Interruption() as interruption:
        signal.signal(signal.SIGTERM, lambda number, frame: later.append(number))
    os.kill(os.getpid(), signal.SIGTERM)
    assert later == [signal.SIGTERM]
    assert not interruption.requested


def test_another_thread_changes_nothing(heard):
    def listen():
        with Interruption():
            handlers.append(signal.getsignal(signal.SIGTERM))

    handlers = []
    before = signal.getsignal(signal.SIGTERM)
    thread = threading.Thread(target=listen)
    thread.start()
    thread.join(10)
    assert handlers == [before]


def test_preempted_asks_to_be_started_again():
    """It is no error of the program's: `except Exception` does not take it for one."""
    stop = Preempted(Position(2, 5, 25))
    assert stop.code == 75
    assert not isinstance(stop, Exception)
    assert str(stop) == "stopped at epoch 3, step 5, which is saved"
    assert str(Preempted(Position(), saved=False)) == "stopped at epoch 1, step 0, which is not saved"
