"""One process at a time: in a folder, or for a file or folder that it makes. Who comes second is told who holds it."""

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
"""For so long a process that is not seen to live keeps its hold from other machines."""


@dataclass
class Hold:
    """That this process holds a folder or file.

    Attributes:
        is_lost: whether another process has taken it since: what is there is that one's now.
    """

    is_lost: bool = False

    def check(self, path: str | os.PathLike) -> None:
        """Raises an `OSError` if another process has taken `path` since: call it before anything is put there."""
        if self.is_lost:
            raise OSError(f"{shown(path)}: another process has taken it meanwhile; nothing is written there any more")


@contextlib.contextmanager
def holding(argument: str, path: Path, *, beside: bool = False) -> Iterator[Hold]:
    """Keeps other processes from writing to a folder while this one does.

    The holder renews its lock, a hidden file with its machine and process, so that it holds on file systems without
    locks too. It is free at once when the holder has ended or was killed on this machine; if that was another machine,
    after `LEASE_SECONDS`.

    Args:
        argument: that named the folder.
        path: the folder.
        beside: whether it is not there yet, so that the lock lies beside it.

    Raises:
        ValueError: the folder cannot be written to, or another process holds it; the message says which, where, and
            since when.
    """
    with contextlib.ExitStack() as stack:
        try:
            hold = stack.enter_context(_held(_lock_beside(path) if beside else path / LOCK_FILE, path, argument))
        except OSError as error:
            raise ValueError(f"{argument}={os.fspath(path)!r} cannot be written: {error.strerror}") from None
        yield hold


@contextlib.contextmanager
def locked(target: Path) -> Iterator[Hold]:
    """Holds a file that this process is to make or change, once no other does; its folder is made.

    Raises:
        OSError: its folder cannot be written to.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    with _held(_lock_beside(target), target) as hold:
        yield hold


def make_folder(argument: str, path: Path) -> bool:
    """Makes a folder that was named with an argument, before anything is computed.

    Returns:
        Whether it was not there.

    Raises:
        ValueError: it cannot be made.
    """
    named = f"{argument}={os.fspath(path)!r}"
    is_new = not os.path.exists(path)  # a name that is too long, or in a folder that is shut, is told below
    if is_new and os.path.islink(path):
        raise ValueError(f"{named} is a link to {os.readlink(path)!r}, which is not there; make it, or remove the link")
    if not is_new and not path.is_dir():
        raise ValueError(f"{named} is not a folder; name another")
    try:
        path.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:  # a ValueError is of a null character
        raise ValueError(f"{named} cannot be written: {getattr(error, 'strerror', error)}") from None
    return is_new


@contextlib.contextmanager
def _held(lock_file: Path, path: Path, argument: str | None = None) -> Iterator[Hold]:
    """Holds a lock for `path`; one that another process holds is refused if an argument named it, else waited for."""
    told = lock_file.with_name(f"{lock_file.name}-holder.json")
    hold = Hold()

    def lost(_):
        hold.is_lost = True
        text = "%s is held by another process now: this one did not renew its lock in time"
        if argument is None:  # a file that is written whole, perhaps in somebody's notebook, which must not end
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
                logging.warning("%s is held by %s; waiting to see whether that lives", shown(path), holder)
            try:
                lock.acquire(timeout=0 if lives else LEASE_SECONDS + 5)
            except filelock.Timeout:
                raise ValueError(
                    f"{argument}={os.fspath(path)!r} is being written by {holder}; name another folder, or wait until "
                    "that has ended"
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
    """A hidden file in the same folder, whose name has room for what is added to it, however long that of `path` is."""
    return path.with_name(f".polynet-{hashlib.sha256(os.fsencode(path.name)).hexdigest()[:16]}.lock")


def _host_of(lock: filelock.SoftFileLease) -> str | None:
    owner = lock.owner
    return None if owner is None else owner.hostname


def _host() -> str | None:
    """This machine as filelock's records name it: in a container, with a number of its own."""
    with contextlib.suppress(OSError), tempfile.TemporaryDirectory() as folder:
        lock = filelock.SoftFileLease(Path(folder, "own"))
        with lock.acquire(timeout=0):
            return _host_of(lock)
    return None


def _holder(told: Path, owner: "filelock.OwnerRecord | None") -> str:
    """Whose lock it is, in words."""
    if owner is None:
        return "another process"
    node, since = owner.hostname, ""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        facts = json.loads(told.read_text())
        if (facts["pid"], facts["host"]) == (owner.pid, owner.hostname):
            since = f", since {datetime.fromisoformat(facts['since']):%Y-%m-%d %H:%M:%S}"
            node = str(facts.get("node", node))
    return f"process {owner.pid} on {shown(node)}{since}"
