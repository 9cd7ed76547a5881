"""Lines between two processes: whole, in time, and of somebody who knows the secret."""

import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from polynet_keras.cluster.signed_lines import Lines, is_nonce, opened, sealed

KEY, MESSAGE = b"0123456789abcdef", {"a": ["\ud800", 1, None]}


def test_who_shares_the_secret_reads_what_was_signed():
    line = sealed(MESSAGE, "hello 1", KEY)
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    assert opened(line.rstrip(b"\n"), "hello 1", KEY) == MESSAGE
    assert opened(sealed(MESSAGE, "hello 1", b"").rstrip(b"\n")) == MESSAGE  # without a secret


@pytest.mark.parametrize(
    ("context", "key", "change"),
    [
        ("hello 2", KEY, lambda line: line),
        ("answer 1", KEY, lambda line: line),
        ("hello 1", b"another secret..", lambda line: line),
        ("hello 1", KEY, lambda line: line.replace(b"null", b"true")),
        ("hello 1", KEY, lambda line: line.partition(b" ")[2]),
        ("hello 1", KEY, lambda line: b" " + line.partition(b" ")[2]),
        ("hello 1", KEY, lambda line: b"\xff" * 64 + line[64:]),
        ("hello 1", KEY, lambda line: b""),
        ("hello 1", b"", lambda line: line),
    ],
)
def test_what_is_signed_otherwise_is_nothing(context, key, change):
    assert opened(change(sealed(MESSAGE, "hello 1", KEY).rstrip(b"\n")), context, key) is None


def test_a_nonce_is_what_we_make():
    assert is_nonce("0123456789abcdef" * 2)
    for other in (None, 1, ["0" * 32], "", "0" * 31, "0" * 33, "A" * 32, "0" * 31 + " ", "0" * 32 + "\n", "٠" * 32):
        assert not is_nonce(other)


def test_lines_that_come_together_are_read_one_by_one():
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(b"a\nb\nc")
        theirs.shutdown(socket.SHUT_WR)
        lines, deadline = Lines(ours), time.monotonic() + 5
        assert [lines.next(deadline) for _ in range(4)] == [b"a", b"b", b"c", b""]


def test_a_line_has_its_time_however_fast_its_bytes_come():
    ours, theirs = socket.socketpair()
    over = threading.Event()

    def drip():
        while not over.is_set():
            theirs.sendall(b"x")
            time.sleep(0.001)

    with ours, theirs, ThreadPoolExecutor(1) as pool:
        dripping = pool.submit(drip)
        start = time.monotonic()
        try:
            Lines(ours).next(start + 0.2)
        finally:
            took = time.monotonic() - start
            over.set()
        dripping.result()
    assert took < 2
