"""Zip archives: what they claim is bounded, and a member is unpacked into a temporary file."""

import errno
import io
import shutil
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import BinaryIO

from polynet_keras.basics.names import number_of, quoted
from polynet_keras.pretrained.open_file import DEFAULT_BUDGET

KERAS_MEMBER = "model.weights.h5"
"""Of a `.keras` file: the weights."""
ZIP_SIGNATURE = b"PK\x03\x04"
MAX_DIRECTORY = 8 << 20
"""Bytes of an archive's list of members, which `zipfile` reads at once."""


@contextmanager
def only_member(file: BinaryIO, budget: int = DEFAULT_BUDGET) -> Iterator[BinaryIO]:
    """The one file that a zip archive holds, unpacked; told as `opened_checkpoint` tells an archive from other files.

    Raises:
        ValueError: the file is not an archive of one file; the message goes on after the file's name.
        OSError: of `errno.ENOSPC`: there is no space to unpack it.
        Others: those of `DAMAGE`.
    """
    file.seek(0)
    if not file.read(len(ZIP_SIGNATURE)) == ZIP_SIGNATURE:
        raise ValueError("is not an archive of one file")
    with ExitStack() as stack:
        with zipfile.ZipFile(BoundedReads(file)) as archive:
            names = member_names(archive)
            if len(names) != 1:
                raise ValueError(f"is not an archive of one file: it has {number_of(len(names), 'file')}")
            member = unpacked_member(archive, names[0], stack, budget)
        yield member


class BoundedReads(io.BufferedIOBase):
    """A file of which little is read at once: `zipfile` reads the directory of an archive as large as that claims."""

    def __init__(self, file: BinaryIO):
        self._file = file

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def read(self, size: int | None = -1) -> bytes:
        content = self._file.read(MAX_DIRECTORY + 1 if size is None or size < 0 else min(size, MAX_DIRECTORY + 1))
        if len(content) > MAX_DIRECTORY:
            raise ValueError(f"is an archive whose list of members is larger than {MAX_DIRECTORY:,} bytes")
        return content


def member_names(archive: zipfile.ZipFile) -> list[str]:
    return [name for name in archive.namelist() if not name.endswith("/")]


def unpacked_member(archive: zipfile.ZipFile, name: str, stack: ExitStack, budget: int) -> BinaryIO:
    """A member, unpacked into a temporary file: HDF5 is read here and there, and memory is for numbers."""
    info = archive.getinfo(name)
    # One that is stored as it is takes no more than the archive itself; training state may make it several times the
    # network.
    limit = 2 * budget
    if info.compress_type != zipfile.ZIP_STORED and info.file_size > limit:
        raise ValueError(f"is an archive whose {quoted(name)} is larger than {limit:,} bytes")
    unpacked: BinaryIO = stack.enter_context(tempfile.TemporaryFile())  # noqa: SIM115 - the stack closes it
    if shutil.disk_usage(tempfile.gettempdir()).free < info.file_size:
        raise OSError(errno.ENOSPC, f"{tempfile.gettempdir()} has no space to unpack it; TMPDIR names another folder")
    with archive.open(info) as member:
        shutil.copyfileobj(member, unpacked, 1 << 20)  # at most `file_size` bytes, and their checksum is compared
    unpacked.seek(0)
    return unpacked
