"""An open weights file: its bytes are verified and loaded, even if another file gets its name."""

import lzma
import os
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from polynet_keras.basics.files import open_regular
from polynet_keras.basics.names import shown

DAMAGE = (OSError, EOFError, KeyError, RuntimeError, TypeError, zipfile.BadZipFile, zlib.error, lzma.LZMAError)
"""What h5py and zipfile raise of damaged files and of encrypted ones. A `TypeError` is h5py's for types that NumPy has
not."""
MAX_REASON = 500
"""Characters of a library's own message that are repeated: it may hold a name out of the file, of any length."""
SLACK = 128 << 20
"""Bytes that reading a file may take beyond the size of the network."""
DEFAULT_BUDGET = (512 << 20) + SLACK
"""Where the network is not known yet: the largest of those that are published, G5, has 0.4 GB."""


@dataclass(frozen=True)
class OpenFile:
    """A file that is open, such as one that was verified: its bytes are used, whatever happens to its name.

    Attributes:
        path: what it is called in messages.
        whole: the file itself.
        content: what is to be loaded: the file, or the one member of the archive that it is.
    """

    path: Path
    whole: BinaryIO
    content: BinaryIO


Source = str | os.PathLike | OpenFile


@contextmanager
def opened_file(path: str | os.PathLike) -> Iterator[OpenFile]:
    """A file that several functions read, one after the other.

    Raises:
        ValueError: it cannot be opened; the message names it.
    """
    with ExitStack() as stack:
        with errors_name(path):
            file = stack.enter_context(opened(path))
        yield OpenFile(Path(path), file, file)


@contextmanager
def opened(source: Source) -> Iterator[BinaryIO]:
    if not isinstance(source, OpenFile):
        with open_regular(Path(source).expanduser()) as file:
            yield file
    else:
        source.content.seek(0)
        yield source.content


def name_of(source: Source) -> str:
    """What a file is called in messages."""
    return os.fspath(source.path if isinstance(source, OpenFile) else source)


@contextmanager
def errors_name(source: Source) -> Iterator[None]:
    """One line for whatever is wrong with a file."""
    try:
        yield
    except DAMAGE as error:
        raise ValueError(f"weights={name_of(source)!r} cannot be read: {reason_of(error)}") from None
    except MemoryError:
        raise ValueError(f"weights={name_of(source)!r} cannot be read: there is not enough memory") from None
    except ValueError as error:
        raise ValueError(f"weights={name_of(source)!r} {reason_of(error)}") from None


def reason_of(error: Exception) -> str:
    """What a library says of a file, in one line that is not too long."""
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return shown(" ".join(text.split()), MAX_REASON) or type(error).__name__
