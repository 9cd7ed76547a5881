import threading
import time

import pytest

from polynet_keras.data.budget import Budget


def test_no_more_is_held_at_once_than_there_is():
    budget, lock, held, most = Budget(10), threading.Lock(), [0], [0]

    def work(amount):
        with budget.held(amount):
            with lock:
                held[0] += min(amount, 10)
                most[0] = max(most[0], held[0])
            time.sleep(0.002)
            with lock:
                held[0] -= min(amount, 10)

    threads = [threading.Thread(target=work, args=(amount,)) for amount in (3, 4, 6, 10, 25, 1, 9, 5) * 4]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
        assert not thread.is_alive()
    assert 6 <= most[0] <= 10


def test_an_error_gives_back():
    budget = Budget(10)
    for _ in range(3):
        with pytest.raises(ValueError, match="of the work"), budget.held(10):
            raise ValueError("of the work")
    with budget.held(10):
        pass
