"""Files that appear whole or not at all."""

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def written_whole(target: Path) -> Iterator[Path]:
    """A path of the target's name, in a folder of its own beside it, that becomes `target` if nothing is raised."""
    with tempfile.TemporaryDirectory(prefix=".polynet-", dir=target.parent) as folder:
        partial = Path(folder, target.name)
        yield partial
        os.replace(partial, target)
