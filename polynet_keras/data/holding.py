"""One process at a time in a folder, and who it is."""

import contextlib
import json
import os
import platform
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import filelock
from absl import logging

LOCK_FILE = ".lock"
LEASE_SECONDS = 60.0
"""For so long a process that is not seen to live keeps its folder from other machines."""


@dataclass
class Hold:
    """That this process holds a folder.

    Attributes:
        is_lost: whether another process has taken it since: what is in the folder is that one's now.
    """

    is_lost: bool = False


@contextlib.contextmanager
def held(folder: Path, argument: str, lock_file: str = LOCK_FILE) -> Iterator[Hold]:
    """Keeps other processes from writing to a folder while this one does.

    The holder renews its lock, a hidden file with its machine and process, so that it holds on file systems without
    locks too. It is free at once when the holder has ended or was killed on this machine; if that was another machine,
    after `LEASE_SECONDS`.

    Args:
        folder: that exists.
        argument: that named the folder.
        lock_file: in the folder.

    Raises:
        ValueError: another process holds the folder; the message says which, where, and since when.
        OSError: the folder cannot be written to.
    """
    path = folder / lock_file
    told = folder / f"{lock_file}-holder.json"

    hold = Hold()

    def lost(_):
        hold.is_lost = True
        logging.error("%s is held by another process now: this one did not renew its lock in time, and stops", folder)
        os.kill(os.getpid(), signal.SIGINT)

    lock = filelock.SoftFileLease(path, lease_duration=LEASE_SECONDS, on_compromise=lost)
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        owner = lock.owner
        if owner is not None and owner.hostname != platform.node():
            logging.warning("%s is held by %s; waiting to see whether that lives", folder, _holder(told, owner))
        try:
            # On this machine it is known to live.
            lock.acquire(timeout=0 if owner and owner.hostname == platform.node() else LEASE_SECONDS + 5)
        except filelock.Timeout:
            raise ValueError(
                f"{argument}={os.fspath(folder)!r} is being written by {_holder(told, owner)}; name another folder, or "
                "wait until that has ended"
            ) from None
    try:
        since = datetime.now().astimezone().isoformat(timespec="seconds")
        told.write_text(json.dumps({"pid": os.getpid(), "host": platform.node(), "since": since}))
        yield hold
    finally:
        if not hold.is_lost:
            with contextlib.suppress(OSError):
                told.unlink()
        lock.release()


def _holder(told: Path, owner: "filelock.OwnerRecord | None") -> str:
    """Whose lock it is, in words."""
    if owner is None:
        return "another process"
    text = f"process {owner.pid} on {owner.hostname}"
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        facts = json.loads(told.read_text())
        if (facts["pid"], facts["host"]) == (owner.pid, owner.hostname):
            text += f", since {datetime.fromisoformat(facts['since']):%Y-%m-%d %H:%M:%S}"
    return text
