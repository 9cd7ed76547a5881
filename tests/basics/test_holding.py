"""One process at a time, and what the second is told."""

import os
import platform
import re
import signal
import socket
import threading
import time

import pytest

from polynet_keras.basics import holding as module
from polynet_keras.basics.holding import holding, locked, make_folder

HOLDER = rf"process {os.getpid()} on {re.escape(platform.node())}, since 20\d\d-"


@pytest.mark.parametrize("name", ["model", "n" * 255, "é" * 127, "with blank", "[a]*?\n"])
def test_what_is_not_there_yet_has_one_writer(tmp_path, name):
    with holding("folder", tmp_path / name, beside=True):
        second = holding("folder", tmp_path / ".." / tmp_path.name / name, beside=True)
        with pytest.raises(ValueError, match=f"^folder='.* is being written by {HOLDER}"), second:
            pass
        with holding("folder", tmp_path / "another", beside=True):
            pass
    assert not list(tmp_path.iterdir())


def test_a_file_is_waited_for_and_the_log_says_who_makes_it(tmp_path, caplog):
    target = tmp_path / "new" / "net.h5"
    waiting, entered = threading.Event(), []

    def second():
        waiting.set()
        with locked(target):
            entered.append(target.read_text())

    with locked(target):
        thread = threading.Thread(target=second)
        thread.start()
        waiting.wait()
        while not caplog.messages and thread.is_alive():
            thread.join(0.01)
        target.write_text("whole")
    thread.join()
    assert entered == ["whole"]
    assert re.search(f"new/net.h5 is being written by {HOLDER}.*; waiting for it", caplog.text)
    assert [path.name for path in target.parent.iterdir()] == ["net.h5"]


def taken_by_another_machine(folder):
    (folder / "taken").write_text(f"filelock/2\npid=1\nhost=far\nmode=lease\ntoken={'0' * 32}\nduration=60\nstart=1\n")
    (lock,) = [*folder.glob("*.lock"), *folder.glob(".lock")][:1]
    (folder / "taken").rename(lock)


def test_who_loses_a_file_is_not_interrupted(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(module, "LEASE_SECONDS", 0.3)
    with locked(tmp_path / "net.h5") as hold:
        taken_by_another_machine(tmp_path)
        ends = time.monotonic() + 10
        while not hold.is_lost:
            assert time.monotonic() < ends
            time.sleep(0.01)
        time.sleep(0.05)  # no signal comes
    assert "net.h5 is now held by another process" in caplog.text


def test_a_process_that_ignores_interrupts_ends_when_it_loses_its_folder(tmp_path, monkeypatch):
    """As `sh -c "polynet train ... &"` starts it."""
    monkeypatch.setattr(module, "LEASE_SECONDS", 0.3)
    exits = []
    monkeypatch.setattr(module.os, "_exit", exits.append)
    handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with holding("run_dir", tmp_path):
            taken_by_another_machine(tmp_path)
            ends = time.monotonic() + 10
            while not exits:
                assert time.monotonic() < ends
                time.sleep(0.01)
    finally:
        signal.signal(signal.SIGINT, handler)
    assert exits == [1]


def test_a_file_is_free_once_its_maker_is_gone(tmp_path):
    with holding("folder", tmp_path / "net.h5", beside=True):
        (lock,) = tmp_path.glob("*.lock")
        record = lock.read_text()
    gone = re.sub(r"(?m)^(pid|start)=.*\n", "", record) + "pid=4194304\n"  # above what Linux gives a process
    (tmp_path / "as before").write_text(gone)
    (tmp_path / "as before").rename(lock)
    with locked(tmp_path / "net.h5"):
        assert str(os.getpid()) in lock.read_text()


def test_a_machine_by_another_name_is_this_one_as_the_lock_says(tmp_path, monkeypatch):
    """In a container, filelock's name of the machine is not Python's."""
    monkeypatch.setattr(socket, "gethostname", lambda: "another-name")
    waits = []
    acquire = module.filelock.SoftFileLease.acquire

    def timed(self, timeout):
        waits.append(timeout)
        return acquire(self, timeout=min(timeout, 0.1))

    monkeypatch.setattr(module.filelock.SoftFileLease, "acquire", timed)
    with holding("run_dir", tmp_path):
        with pytest.raises(ValueError, match=f"is being written by {HOLDER}"), holding("run_dir", tmp_path):
            pass
        assert "host=another-name" in (tmp_path / ".lock").read_text()
    assert not any(waits)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("dangling", "is a link to 'nowhere', which is missing; make it, or remove the link"),
        ("circle", "is a link to 'circle', which is missing"),
        ("dangling/below", "cannot be written: "),
        ("file", "is not a folder; name another"),
        ("file/below", "cannot be written: Not a directory"),
        ("n" * 256, "cannot be written: File name too long"),
        ("a\0b", "cannot be written: embedded null byte"),
    ],
)
def test_a_folder_that_cannot_be_made(tmp_path, name, message):
    (tmp_path / "dangling").symlink_to("nowhere")
    (tmp_path / "circle").symlink_to("circle")
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match=re.escape(message)) as raised:
        make_folder("out", tmp_path / name)
    assert f"out={os.fspath(tmp_path / name)!r}" in str(raised.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["circle", "dangling", "file"]
