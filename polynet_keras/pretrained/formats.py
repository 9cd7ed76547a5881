"""Reading a checkpoint file, whatever it is: told from its content, never from its name.

What a file claims is compared with what it holds, and later with the network, before memory is taken for it.
"""

import zipfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, BinaryIO

import h5py

from polynet_keras.basics.names import number_of
from polynet_keras.pretrained.archives import KERAS_MEMBER, ZIP_SIGNATURE, BoundedReads, member_names, unpacked_member
from polynet_keras.pretrained.hdf5 import HDF5_SIGNATURE, check_heaps, read_hdf5
from polynet_keras.pretrained.open_file import DEFAULT_BUDGET, Source, errors_name, name_of, opened
from polynet_keras.pretrained.state_dict import TORCH_SIGNATURE, checkpoint_of, read_state_dict
from polynet_keras.pretrained.stored_arrays import ACCEPTED, Checkpoint, values_of

if TYPE_CHECKING:
    import torch


@contextmanager
def opened_checkpoint(source: Source, budget: int = DEFAULT_BUDGET) -> Iterator[Checkpoint]:
    """A checkpoint of `StoredArray`s, to be read while the context lasts.

    It is an HDF5 file, a PyTorch state dict, or a zip archive that holds one of them. Nothing is unpickled but tensors
    (`weights_only`), and only an array that is whole in the file is taken: none that is compressed, repeated by
    strides, never written, or in another file, so that a small file cannot claim much memory. A member of an archive is
    unpacked into a temporary file without a name.

    Args:
        source: the file.
        budget: bytes of memory that may be taken before the arrays are read.

    Raises:
        ValueError: the file is missing or damaged, of no known format or of another network, or PyTorch is needed
            and not installed; the message names the file.
    """
    with ExitStack() as stack:
        with errors_name(source):
            kind, file = _unpacked(stack.enter_context(opened(source)), stack, budget)
            if kind == "HDF5":
                check_heaps(file)
                checkpoint = read_hdf5(stack.enter_context(h5py.File(file, "r")), source)
            else:
                checkpoint = checkpoint_of(read_state_dict(file, budget), source)
        yield checkpoint


def read_checkpoint(source: Source, budget: int = DEFAULT_BUDGET) -> Checkpoint:
    """A checkpoint with its values.

    Args:
        source: as of `opened_checkpoint`.
        budget: the most bytes that its arrays may have.

    Raises:
        ValueError: as `opened_checkpoint`; or the arrays are larger.
    """
    with opened_checkpoint(source, budget) as checkpoint:
        arrays = checkpoint.arrays
        total = sum(array.size * array.dtype.itemsize for array in arrays.values())
        if total > budget:
            raise ValueError(f"weights={name_of(source)!r} holds {total:,} bytes of numbers, more than {budget:,}")
        return Checkpoint(checkpoint.format, {key: values_of(array) for key, array in arrays.items()})


def torch_state_dict(source: Source) -> dict[str, "torch.Tensor"]:
    """The state dict in a PyTorch file, or in a zip archive of one, as it is.

    Raises:
        ValueError: as `opened_checkpoint`.
    """
    with ExitStack() as stack, errors_name(source):
        kind, file = _unpacked(stack.enter_context(opened(source)), stack, DEFAULT_BUDGET)
        if kind != "PyTorch":
            raise ValueError(f"is {kind}, not a PyTorch file")
        return read_state_dict(file, DEFAULT_BUDGET)


def hdf5_bytes(source: Source) -> bytes:
    """The HDF5 file itself, out of the zip archive that it may be in.

    Raises:
        ValueError: as `opened_checkpoint`.
    """
    with ExitStack() as stack, errors_name(source):
        kind, file = _unpacked(stack.enter_context(opened(source)), stack, DEFAULT_BUDGET)
        if kind != "HDF5":
            raise ValueError(f"is a {kind} file, not HDF5")
        return file.read()


def _unpacked(file: BinaryIO, stack: ExitStack, budget: int, inside_archive: bool = False) -> tuple[str, BinaryIO]:
    """What kind of file it is, "HDF5" or "PyTorch", and the file, taken out of its archive."""
    signature = file.read(len(TORCH_SIGNATURE))
    file.seek(0)
    if signature.startswith(HDF5_SIGNATURE):
        return "HDF5", file
    if signature == TORCH_SIGNATURE:
        return "PyTorch", file
    if not signature.startswith(ZIP_SIGNATURE):
        raise ValueError(f"is not a checkpoint; expected {ACCEPTED}")
    with zipfile.ZipFile(BoundedReads(file)) as archive:
        names = member_names(archive)
        if KERAS_MEMBER in names:
            return "HDF5", unpacked_member(archive, KERAS_MEMBER, stack, budget)
        if not any(name.endswith("/data.pkl") for name in names):
            if inside_archive or len(names) != 1:
                raise ValueError(
                    f"is an archive of {number_of(len(names), 'file')}, not of one checkpoint; expected {ACCEPTED}"
                )
            return _unpacked(unpacked_member(archive, names[0], stack, budget), stack, budget, inside_archive=True)
        # Since PyTorch 1.6. It writes members as they are, and reads them by the plain rules: no bytes in front.
        packed = any(member.compress_type != zipfile.ZIP_STORED for member in archive.infolist())
        if packed or min(member.header_offset for member in archive.infolist()):
            raise ValueError("is a PyTorch file, but not as PyTorch writes it: its archive is compressed, or prefixed")
    file.seek(0)
    return "PyTorch", file
