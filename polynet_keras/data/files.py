"""Files that appear whole or not at all, and one process at a time."""

import contextlib
import errno
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import filelock
from absl import logging


@contextlib.contextmanager
def written_whole(target: Path) -> Iterator[Path]:
    """A path of the target's name, in a folder of its own beside it, that becomes `target` if nothing is raised."""
    with tempfile.TemporaryDirectory(prefix=".polynet-", dir=target.parent) as folder:
        partial = Path(folder, target.name)
        yield partial
        os.replace(partial, target)


@contextlib.contextmanager
def locked(target: Path) -> Iterator[None]:
    """Holds the file `target` among processes; the system frees it when a process dies."""
    target.parent.mkdir(parents=True, exist_ok=True)
    # A lock file without the system's lock would stay for ever when its process is killed.
    lock = filelock.FileLock(target.with_name(f"{target.name}.lock"), fallback_to_soft=False)
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        logging.warning("another process is making %s; waiting for it", target)
        lock.acquire()
    except (NotImplementedError, OSError) as error:
        if isinstance(error, OSError) and error.errno not in (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP):
            raise
        # A file system without locks: processes may do the work twice, and each leaves it whole.
        yield
        return
    try:
        yield
    finally:
        lock.release()
