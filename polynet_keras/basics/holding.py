"""Locks: one process at a time writes a folder, or makes a file or folder. The next process learns who holds it."""

import contextlib
import hashlib
import json
import os
import platform
import signal
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import filelock
from absl import logging

from polynet_keras.basics.names import shown

LOCK_FILE = ".lock"
LEASE_SECONDS = 60.0
"""A lock that is not renewed for this long is free for processes on other machines."""


@dataclass
class Hold:
    """The lock of this process on a folder or file.

    Attributes:
        is_lost: whether another process has taken the lock since. The folder or file then belongs to that process.
    """

    is_lost: bool = False

    def check(self, path: str | os.PathLike) -> None:
        """Raises an `OSError` if another process has taken `path` since. Call it before you write anything there."""
        if self.is_lost:
            raise OSError(f"{shown(path)}: another process has taken it; this process no longer writes there")


@contextlib.contextmanager
def holding(argument: str, path: Path, *, beside: bool = False) -> Iterator[Hold]:
    """Keeps other processes from writing to a folder while this one does.

    The lock is a hidden file with the holder's machine and process. The holder renews it, so it also works on file
    systems without locks. When the holder exits or is killed, the lock is free at once on its machine, and on other
    machines after `LEASE_SECONDS`.

    Args:
        argument: the name of the argument that named the folder.
        path: the folder.
        beside: whether the folder does not exist yet, so that the lock is beside it.

    Raises:
        ValueError: the folder cannot be written to, or another process holds it. The message names that process, its
            machine, and the time since when.
    """
    with contextlib.ExitStack() as stack:
        try:
            hold = stack.enter_context(_held(_lock_beside(path) if beside else path / LOCK_FILE, path, argument))
        except OSError as error:
            raise ValueError(f"{argument}={os.fspath(path)!r} cannot be written: {error.strerror}") from None
        yield hold


@contextlib.contextmanager
def locked(target: Path) -> Iterator[Hold]:
    """Waits for the lock of a file that this process will make or change, and makes the file's folder.

    Raises:
        OSError: the file's folder cannot be written to.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    with _held(_lock_beside(target), target) as hold:
        yield hold


def make_folder(argument: str, path: Path) -> bool:
    """Makes a folder that an argument named, before anything is computed.

    Returns:
        Whether the folder is new.

    Raises:
        ValueError: the folder cannot be made.
    """
    named = f"{argument}={os.fspath(path)!r}"
    is_new = not os.path.exists(path)  # below: errors of a name that is too long, or in a closed folder
    if is_new and os.path.islink(path):
        raise ValueError(f"{named} is a link to {os.readlink(path)!r}, which is missing; make it, or remove the link")
    if not is_new and not path.is_dir():
        raise ValueError(f"{named} is not a folder; name another")
    try:
        path.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:  # ValueError: a null character in the name
        raise ValueError(f"{named} cannot be written: {getattr(error, 'strerror', error)}") from None
    return is_new


@contextlib.contextmanager
def _held(lock_file: Path, path: Path, argument: str | None = None) -> Iterator[Hold]:
    """Holds a lock for `path`. If another process holds it: an error if an argument named the path, else it waits."""
    told = lock_file.with_name(f"{lock_file.name}-holder.json")
    hold = Hold()

    def lost(_):
        hold.is_lost = True
        text = "%s is now held by another process: this one did not renew its lock in time"
        if argument is None:  # perhaps a notebook, which must survive; the file appears only when it is complete
            logging.warning(text, shown(path))
            return
        logging.error(f"{text}, and stops", shown(path))
        if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as in the background of a script
            os._exit(1)
        os.kill(os.getpid(), signal.SIGINT)

    lock = filelock.SoftFileLease(lock_file, lease_duration=LEASE_SECONDS, on_compromise=lost)
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        owner = lock.owner
        holder = _holder(told, owner)
        if argument is None:
            logging.warning("%s is being written by %s; waiting for it", shown(path), holder)
            lock.acquire()
        else:
            lives = owner is not None and owner.hostname == _host()  # else filelock would have taken its lock
            if owner is not None and not lives:
                logging.warning("%s is held by %s; waiting to see whether it is alive", shown(path), holder)
            try:
                lock.acquire(timeout=0 if lives else LEASE_SECONDS + 5)
            except filelock.Timeout:
                raise ValueError(
                    f"{argument}={os.fspath(path)!r} is being written by {holder}; name another folder, or wait until "
                    "that process has ended"
                ) from None
    try:
        facts = {"pid": os.getpid(), "host": _host_of(lock), "node": platform.node()}
        told.write_text(json.dumps(facts | {"since": datetime.now().astimezone().isoformat(timespec="seconds")}))
        yield hold
    finally:
        if not hold.is_lost:
            with contextlib.suppress(OSError):
                told.unlink()
        lock.release()


def _lock_beside(path: Path) -> Path:
    """Returns a hidden file in the same folder. Its name is short enough for suffixes, however long that of `path`."""
    return path.with_name(f".polynet-{hashlib.sha256(os.fsencode(path.name)).hexdigest()[:16]}.lock")


def _host_of(lock: filelock.SoftFileLease) -> str | None:
    owner = lock.owner
    return None if owner is None else owner.hostname


def _host() -> str | None:
    """Returns this machine's name in filelock's records; a container has its own number there."""
    with contextlib.suppress(OSError), tempfile.TemporaryDirectory() as folder:
        lock = filelock.SoftFileLease(Path(folder, "own"))
        with lock.acquire(timeout=0):
            return _host_of(lock)
    return None


def _holder(told: Path, owner: "filelock.OwnerRecord | None") -> str:
    """Returns the holder of a lock, in words."""
    if owner is None:
        return "another process"
    node, since = owner.hostname, ""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        facts = json.loads(told.read_text())
        if (facts["pid"], facts["host"]) == (owner.pid, owner.hostname):
            since = f", since {datetime.fromisoformat(facts['since']):%Y-%m-%d %H:%M:%S}"
            node = str(facts.get("node", node))
    return f"process {owner.pid} on {shown(node)}{since}"
