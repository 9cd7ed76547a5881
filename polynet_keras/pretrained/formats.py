"""Reading a checkpoint file, whatever it is: told from its content, never from its name.

What a file claims is compared with what it holds, and later with the network, before memory is taken for it.
"""

import errno
import io
import lzma
import os
import shutil
import struct
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from enum import StrEnum
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import h5py
import numpy as np

from polynet_keras.data.files import open_regular
from polynet_keras.data.names import quoted
from polynet_keras.pretrained import name_maps

if TYPE_CHECKING:
    import torch

HDF5_SIGNATURE = b"\x89HDF\r\n\x1a\n"
ZIP_SIGNATURE = b"PK\x03\x04"
TORCH_SIGNATURE = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
"""How `torch.save` began its files before PyTorch 1.6, which writes a zip archive; the published ones are older."""

KERAS_MEMBER = "model.weights.h5"
CONFIG_MEMBER, MAX_CONFIG = "config.json", 16 << 20
"""The layers of a whole model, as text."""
METADATA_MEMBER, MAX_METADATA = "metadata.json", 1 << 20
SLACK = 128 << 20
"""Bytes that reading a file may take beyond the size of the network."""
DEFAULT_BUDGET = (512 << 20) + SLACK
"""Where the network is not known yet: the largest of those that are published, G5, has 0.4 GB."""
MAX_ENTRIES = 50_000
"""Of an HDF5 group. G5 has 2,700 arrays."""
MAX_DIRECTORY = 8 << 20
"""Bytes of an archive's list of members, which `zipfile` reads at once."""
SCANNED = 1 << 20
MIN_HEAP, MAX_HEAP = 4096, 4 << 20
"""Bytes of one of an HDF5 file's heaps, which hold the names of layers."""
MAX_NAME = 1_000

DAMAGE = (OSError, EOFError, KeyError, RuntimeError, zipfile.BadZipFile, zlib.error, lzma.LZMAError)
"""What h5py and zipfile raise of damaged files and of encrypted ones."""

WHOLE_NUMBERS = ("bool", "uint8", "int8", "int16", "int32", "int64")
"""Of PyTorch's types without a fraction, those that NumPy has by the same name."""

MIN_TORCH = (2, 6)
"""Before it, `weights_only` could be led to run code (CVE-2025-32434)."""

ACCEPTED = (
    "a .weights.h5 or .keras file of this package, a tf2cv HDF5, or a state dict of pretrainedmodels or pytorchcv"
)


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


class Format(StrEnum):
    """Who wrote a checkpoint, and so what it calls the layers."""

    KERAS = "polynet_keras"
    TF2CV = "tf2cv"
    CADENE = "pretrainedmodels"
    PYTORCHCV = "pytorchcv"


TABLES = {
    Format.TF2CV: name_maps.tf2cv,
    Format.CADENE: name_maps.cadene,
    Format.PYTORCHCV: name_maps.pytorchcv,
}


@dataclass(frozen=True)
class StoredArray:
    """An array that is in a file, and is not read yet.

    Attributes:
        shape: in Keras's layout.
        dtype: of what `read` returns.
        read: its values. Raises a `ValueError` that names the file, if that is damaged.
    """

    shape: tuple[int, ...]
    dtype: np.dtype
    read: Callable[[], np.ndarray]

    @property
    def size(self) -> int:
        return int(np.prod(self.shape, dtype=object))


@dataclass(frozen=True)
class Checkpoint:
    """The arrays of a checkpoint file.

    Attributes:
        format: who wrote it.
        arrays: by the source's own key, in Keras's layout (a convolution's kernel is height, width, in, out).
            Of `Format.KERAS` the key is `layer/number of the variable`.
    """

    format: Format
    arrays: Mapping[str, np.ndarray | StoredArray]


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
        with _errors_name(source):
            kind, file = _unpacked(stack.enter_context(_opened(source)), stack, budget)
            if kind == "HDF5":
                _check_heaps(file)
                checkpoint = _read_hdf5(stack.enter_context(h5py.File(file, "r")), source)
            else:
                checkpoint = _from_state_dict(_state_dict(file, budget), source)
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


def values_of(array: np.ndarray | StoredArray) -> np.ndarray:
    """The values of an array, read if they were not yet."""
    return array.read() if isinstance(array, StoredArray) else array


def torch_state_dict(source: Source) -> dict[str, "torch.Tensor"]:
    """The state dict in a PyTorch file, or in a zip archive of one, as it is.

    Raises:
        ValueError: as `opened_checkpoint`.
    """
    with ExitStack() as stack, _errors_name(source):
        kind, file = _unpacked(stack.enter_context(_opened(source)), stack, DEFAULT_BUDGET)
        if kind != "PyTorch":
            raise ValueError(f"is {kind}, not a PyTorch file")
        return _state_dict(file, DEFAULT_BUDGET)


def hdf5_bytes(source: Source) -> bytes:
    """The HDF5 file itself, out of the zip archive that it may be in.

    Raises:
        ValueError: as `opened_checkpoint`.
    """
    with ExitStack() as stack, _errors_name(source):
        kind, file = _unpacked(stack.enter_context(_opened(source)), stack, DEFAULT_BUDGET)
        if kind != "HDF5":
            raise ValueError(f"is a {kind} file, not HDF5")
        return file.read()


@contextmanager
def only_member(file: BinaryIO, budget: int = DEFAULT_BUDGET) -> Iterator[BinaryIO]:
    """The one file that a zip archive holds, unpacked; told as `opened_checkpoint` tells an archive from other files.

    Raises:
        ValueError: the file is no archive of one file; the message goes on after the file's name.
        OSError: of `errno.ENOSPC`: there is no space to unpack it.
        Others: those of `DAMAGE`.
    """
    file.seek(0)
    if not file.read(len(ZIP_SIGNATURE)) == ZIP_SIGNATURE:
        raise ValueError("is no archive of one file")
    with ExitStack() as stack:
        with zipfile.ZipFile(_BoundedReads(file)) as archive:
            names = _member_names(archive)
            if len(names) != 1:
                raise ValueError(f"is no archive of one file, it has {len(names)}")
            member = _member(archive, names[0], stack, budget)
        yield member


def check_model_file(file: BinaryIO) -> None:
    """Refuses a `.keras` file of a whole model that claims more than it holds, before Keras reads it.

    Its members are bounded, and its arrays have to be whole in it, as those of a weights file. What layers its
    configuration names is not looked at.

    Raises:
        ValueError: the file is none, or claims more; the message goes on after the file's name.
        Others: those of `DAMAGE`.
    """
    if file.read(len(ZIP_SIGNATURE)) != ZIP_SIGNATURE:
        raise ValueError("is no archive, as `model.save` writes it")
    with ExitStack() as stack:
        with zipfile.ZipFile(_BoundedReads(file)) as archive:
            names = _member_names(archive)
            for name in (CONFIG_MEMBER, KERAS_MEMBER):
                if names.count(name) != 1:
                    raise ValueError(f"is an archive that has {name!r} {names.count(name)} times")
            for info in archive.infolist():
                most = {CONFIG_MEMBER: MAX_CONFIG, METADATA_MEMBER: MAX_METADATA}.get(info.filename, DEFAULT_BUDGET)
                # A member that is stored as it is takes no more than the archive, unless it is a text that is parsed.
                bounded = info.filename in (CONFIG_MEMBER, METADATA_MEMBER)
                if (bounded or info.compress_type != zipfile.ZIP_STORED) and info.file_size > most:
                    raise ValueError(f"is an archive whose {quoted(info.filename)} is larger than {most:,} bytes")
            # Keras may unpack all of them.
            if sum(info.file_size for info in archive.infolist()) > file.seek(0, os.SEEK_END) + DEFAULT_BUDGET:
                raise ValueError(f"is an archive whose members are together {DEFAULT_BUDGET:,} bytes larger than it")
            weights = _member(archive, KERAS_MEMBER, stack, DEFAULT_BUDGET)
        _check_heaps(weights)
        _check_arrays(stack.enter_context(h5py.File(weights, "r")))


@contextmanager
def opened_file(path: str | os.PathLike) -> Iterator[OpenFile]:
    """A file that several functions read, one after the other.

    Raises:
        ValueError: it cannot be opened; the message names it.
    """
    with ExitStack() as stack:
        with _errors_name(path):
            file = stack.enter_context(_opened(path))
        yield OpenFile(Path(path), file, file)


@contextmanager
def _opened(source: Source) -> Iterator[BinaryIO]:
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
def _errors_name(source: Source) -> Iterator[None]:
    """One line for whatever is wrong with a file."""
    try:
        yield
    except DAMAGE as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        reason = " ".join(str(reason).split()) or type(error).__name__
        raise ValueError(f"weights={name_of(source)!r} cannot be read: {reason}") from None
    except MemoryError:
        raise ValueError(f"weights={name_of(source)!r} cannot be read: there is not enough memory") from None
    except ValueError as error:
        raise ValueError(f"weights={name_of(source)!r} {error}") from None


def _unpacked(file: BinaryIO, stack: ExitStack, budget: int, inside_archive: bool = False) -> tuple[str, BinaryIO]:
    """What kind of file it is, "HDF5" or "PyTorch", and the file, taken out of its archive."""
    signature = file.read(len(TORCH_SIGNATURE))
    file.seek(0)
    if signature.startswith(HDF5_SIGNATURE):
        return "HDF5", file
    if signature == TORCH_SIGNATURE:
        return "PyTorch", file
    if not signature.startswith(ZIP_SIGNATURE):
        raise ValueError(f"is no checkpoint; expected {ACCEPTED}")
    with zipfile.ZipFile(_BoundedReads(file)) as archive:
        names = _member_names(archive)
        if KERAS_MEMBER in names:
            return "HDF5", _member(archive, KERAS_MEMBER, stack, budget)
        if not any(name.endswith("/data.pkl") for name in names):
            if inside_archive or len(names) != 1:
                raise ValueError(f"is an archive of {len(names)} files, not of one checkpoint; expected {ACCEPTED}")
            return _unpacked(_member(archive, names[0], stack, budget), stack, budget, inside_archive=True)
        # Since PyTorch 1.6. It writes members as they are, and reads them by the plain rules: no bytes in front.
        packed = any(member.compress_type != zipfile.ZIP_STORED for member in archive.infolist())
        if packed or min(member.header_offset for member in archive.infolist()):
            raise ValueError("is a PyTorch file, but not as PyTorch writes it: its archive is compressed, or prefixed")
    file.seek(0)
    return "PyTorch", file


class _BoundedReads(io.BufferedIOBase):
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


def _member_names(archive: zipfile.ZipFile) -> list[str]:
    return [name for name in archive.namelist() if not name.endswith("/")]


def _member(archive: zipfile.ZipFile, name: str, stack: ExitStack, budget: int) -> BinaryIO:
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


def _read_hdf5(root: h5py.File, source: Source) -> Checkpoint:
    if "layers" in root:
        return Checkpoint(Format.KERAS, _once(_keras_arrays(_group(root, "layers"), source)))
    if any(name.startswith("layer_names") for name in root.attrs):
        return Checkpoint(Format.TF2CV, _once(_layer_wise_arrays(root, source)))
    found = ", ".join(quoted(name) for name in _entries(root)[:3])
    raise ValueError(f"is an HDF5 file with [{found}], not with the layers of a network; expected {ACCEPTED}")


def _check_heaps(file: BinaryIO) -> None:
    """Refuses a file in whose heaps of texts HDF5's library would go round in circles: an entry of no length.

    A heap of another length than HDF5 writes is none, but numbers that look like its signature.
    """
    end = file.seek(0, os.SEEK_END)
    signature, header, entry = b"GCOL\x01", 16, struct.Struct("<HHIQ")
    for start in range(0, end, SCANNED):
        file.seek(start)
        block = file.read(SCANNED + len(signature) - 1)
        place = block.find(signature)
        while place >= 0:
            file.seek(start + place)
            size = int.from_bytes(file.read(header)[8:], "little")
            if MIN_HEAP <= size <= min(MAX_HEAP, end - start - place):
                content, at = file.read(size - header), 0
                while len(content) - at >= entry.size:
                    number, _, _, length = entry.unpack_from(content, at)
                    step = length if number == 0 else entry.size + -(-length // 8) * 8
                    if not entry.size <= step <= len(content) - at:
                        raise ValueError("is an HDF5 file with a damaged heap")
                    at += step
            elif MAX_HEAP < size <= end - start - place:
                raise ValueError(f"is an HDF5 file with a heap of {size:,} bytes of texts")
            place = block.find(signature, place + 1)
    file.seek(0)


def _once(pairs: Iterator[tuple[str, StoredArray]]) -> dict[str, StoredArray]:
    arrays: dict[str, StoredArray] = {}
    for key, array in pairs:
        if key in arrays:
            raise ValueError(f"is an HDF5 file that has {quoted(key)} twice")
        if len(arrays) == MAX_ENTRIES:
            raise ValueError(f"is an HDF5 file of more than {MAX_ENTRIES:,} arrays")
        arrays[key] = array
    return arrays


def _keras_arrays(layers: h5py.Group, source: Source) -> Iterator[tuple[str, StoredArray]]:
    """Keras 3 files a layer under its class and a number (`conv2d_12`), and writes its name beside the variables."""
    for layer in _entries(layers):
        group = _group(layers, layer)
        if "vars" in group:
            variables = _group(group, "vars")
            name = _layer_name(variables)
            for number in _entries(variables):
                yield f"{name}/{number}", _array(variables, number, source)


def _layer_wise_arrays(root: h5py.File, source: Source) -> Iterator[tuple[str, StoredArray]]:
    """Keras 2: a group a layer of the model's first level, and in it the scopes of all that is below it.

    Its attributes list them once more. They are not read: thousands of texts may be one and the same megabyte.
    """
    found: list[str] = []

    def note(name: str, entry: h5py.Group | h5py.Dataset) -> bool | None:
        if isinstance(entry, h5py.Dataset):
            found.append(name)
        count[0] += 1
        return True if count[0] > MAX_ENTRIES else None

    count = [0]
    if root.visititems(note):
        raise ValueError(f"is an HDF5 file of more than {MAX_ENTRIES:,} groups and arrays")
    for path in found:
        layer, _, name = path.partition("/")
        # How many scopes stand before the layer's own differs with the version of TensorFlow.
        _, _, inner = f"/{name}".partition(f"/{layer}/")
        key = f"{layer}/{inner or name}".removesuffix(":0")
        yield name_maps.without_repeats(key), _array(root, path, source)


def _check_arrays(root: h5py.File) -> None:
    """Refuses an HDF5 file with anything in it but groups, and arrays of numbers that are whole in it."""
    groups: list[h5py.Group] = [root]
    count, seen = 0, {h5py.h5o.get_info(root.id).addr}
    while groups:
        group = groups.pop()
        for name in _entries(group):
            count += 1
            if count > MAX_ENTRIES:
                raise ValueError(f"is an HDF5 file of more than {MAX_ENTRIES:,} groups and arrays")
            if isinstance(entry := _own(group, name), h5py.Group):
                place = h5py.h5o.get_info(entry.id).addr
                if place in seen:
                    raise ValueError(f"is an HDF5 file that has the group {_place(group, name)} twice")
                seen.add(place)
                groups.append(entry)
            else:
                _array(group, name, "")


def _entries(group: h5py.Group) -> list[str]:
    """The names in a group, which h5py lists all at once."""
    if len(group) > MAX_ENTRIES:
        raise ValueError(f"is an HDF5 file with {len(group):,} names in one group, more than {MAX_ENTRIES:,}")
    return list(group)


def _group(parent: h5py.Group, name: str) -> h5py.Group:
    group = _own(parent, name)
    if not isinstance(group, h5py.Group):
        raise ValueError(f"is an HDF5 file in which {quoted(name)} is no group")
    return group


def _array(parent: h5py.Group, name: str, source: Source) -> StoredArray:
    """A dataset whose values are all in the file, one after the other, as Keras writes it."""
    dataset, place = _own(parent, name), _place(parent, name)
    dtype = _dtype(dataset)
    if dtype is None:
        raise ValueError(f"is an HDF5 file in which {place} is no array of numbers")
    if dataset.external or dataset.is_virtual:
        raise ValueError(f"is an HDF5 file whose {place} is in another file")
    if dataset.chunks is not None:
        # A chunk can unpack to any size, and reading takes memory for each of them.
        raise ValueError(
            f"is an HDF5 file whose {place} of shape {dataset.shape} is compressed or in chunks, which Keras "
            "never writes; `h5repack -l CONTI -f NONE FILE NEW` makes it readable"
        )
    if dataset.id.get_storage_size() < dataset.size * dataset.dtype.itemsize:
        raise ValueError(f"is an HDF5 file whose {place} claims the shape {dataset.shape}, which it does not hold")

    def read() -> np.ndarray:
        with _errors_name(source):
            values = dataset[()]
            return _from_bfloat16(values) if values.dtype.kind == "V" else values

    return StoredArray(dataset.shape, dtype, read)


def _dtype(entry: h5py.Group | h5py.Dataset) -> np.dtype | None:
    """The dtype in which the numbers of a dataset are read; `None` if it is none, or holds other things."""
    try:
        dtype = entry.dtype if isinstance(entry, h5py.Dataset) else None
    except TypeError:  # HDF5 has types that NumPy has not
        return None
    if dtype == np.dtype("V2"):
        # Keras writes a bfloat16, which HDF5 has not, as two bytes, and beside them what they are.
        return np.dtype("float32") if _text_attribute(entry, "dtype") == "bfloat16" else None
    return dtype if dtype is not None and dtype.kind in "fiub" else None


def _from_bfloat16(values: np.ndarray) -> np.ndarray:
    """float32, of which bfloat16 is the first half."""
    halves = np.asarray(values).view("<u2").astype("<u4")
    return (halves << 16).view("<f4")


def _own(parent: h5py.Group, name: str):
    """What the file itself has under a name: links could lead to any file of this machine."""
    for part in name.split("/"):
        if not isinstance(parent, h5py.Group) or not isinstance(parent.get(part, getlink=True), h5py.HardLink):
            raise ValueError(f"is an HDF5 file whose {_place(parent, part)} is a link")
        parent = parent[part]
    return parent


def _place(parent: h5py.Group, name: str) -> str:
    """Of a variable the name alone is a number."""
    return quoted(f"{parent.name}/{name}".lstrip("/"))


def _layer_name(variables: h5py.Group) -> str:
    name = _text_attribute(variables, "name")
    if name is None:
        raise ValueError(f"is an HDF5 file in which a layer's name is no text of at most {MAX_NAME} characters")
    return name


def _text_attribute(entry: h5py.Group | h5py.Dataset, key: str) -> str | None:
    """`None` where there is none, or no text of at most `MAX_NAME` characters."""
    if key not in entry.attrs:
        return None
    attribute = entry.attrs.get_id(key)
    text = entry.attrs[key] if attribute.shape == () and attribute.dtype.kind in "SO" else None
    text = text.decode() if isinstance(text, bytes) else text
    return text if isinstance(text, str) and len(text) <= MAX_NAME else None


def _state_dict(file: BinaryIO, budget: int) -> dict[str, "torch.Tensor"]:
    if find_spec("torch") is None:
        raise ValueError(
            "is a PyTorch file, and PyTorch is not installed: pip install 'torch>=2.6' (the extra `parity` has it)"
        )
    import torch

    if tuple(int(part) for part in torch.__version__.split(".")[:2]) < MIN_TORCH:
        raise ValueError(
            f"is a PyTorch file, which PyTorch {torch.__version__} does not read safely: pip install 'torch>=2.6'"
        )
    descriptor = Path("/dev/fd", str(file.fileno()))
    mapped = file.read(len(ZIP_SIGNATURE)) == ZIP_SIGNATURE and descriptor.exists()
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    if not mapped and size > budget:
        raise ValueError(
            f"is a PyTorch file of {size:,} bytes that can only be read whole, and {budget:,} are allowed for its "
            "network; save its state dict alone, with PyTorch 1.6 or later"
        )
    try:
        # Mapped, a tensor takes memory as it is read, not as it is claimed.
        state = torch.load(descriptor if mapped else file, map_location="cpu", weights_only=True, mmap=mapped)
    except Exception:  # of a damaged pickle anything can come
        # PyTorch's own message advises to load it without weights_only, which would run the file's code.
        raise ValueError("is a PyTorch file that is damaged, or holds more than tensors; neither is loaded") from None
    if isinstance(state, dict) and isinstance(state.get("state_dict"), dict):
        state = state["state_dict"]  # how training scripts save it, with the epoch and the like
    if not isinstance(state, dict) or not state or not all(isinstance(key, str) for key in state):
        raise ValueError("is a PyTorch file, but not a state dict: a mapping from names to tensors")
    for key, value in state.items():
        if not isinstance(value, torch.Tensor):
            raise ValueError("is a PyTorch file, but not a state dict: a mapping from names to tensors")
        plain = value.is_floating_point() or str(value.dtype).removeprefix("torch.") in WHOLE_NUMBERS
        strided = value.layout is torch.strided and not value.is_nested and value.device.type == "cpu"
        if not (plain and strided):
            raise ValueError(f"is a PyTorch file whose {quoted(key)} is no plain array of numbers")
        if value.numel() * value.element_size() > value.untyped_storage().nbytes():
            raise ValueError(
                f"is a PyTorch file whose {quoted(key)} claims the shape {tuple(value.shape)}, which it does not hold"
            )
    # Trained on several GPUs with DataParallel.
    prefix = "module." if all(key.startswith("module.") for key in state) else ""
    return {key.removeprefix(prefix): value for key, value in state.items()}


def _from_state_dict(state: dict[str, "torch.Tensor"], source: Source) -> Checkpoint:
    # How many batches training saw: not needed, and not there in files of PyTorch 0.4.
    keys = [key for key in state if not key.endswith(".num_batches_tracked")]
    layers = {key.rpartition(".")[0] for key in keys}
    known = {format_: len(layers & TABLES[format_]().keys()) for format_ in (Format.CADENE, Format.PYTORCHCV)}
    best = max(known, key=lambda format_: known[format_])
    if not known[best]:
        raise ValueError(
            f"is a state dict of another network: it begins with {quoted(next(iter(state)))}; expected {ACCEPTED}"
        )
    return Checkpoint(best, {key: _stored_tensor(state[key], source) for key in keys})


def _stored_tensor(tensor: "torch.Tensor", source: Source) -> StoredArray:
    def read() -> np.ndarray:
        with _errors_name(source):
            return keras_layout((tensor.float() if short else tensor).detach().numpy())

    # float32 holds all that shorter ones do; NumPy does not have each of them.
    short = tensor.is_floating_point() and tensor.element_size() < 4
    shape = tuple(tensor.shape)
    return StoredArray(
        (*shape[2:], shape[1], shape[0]) if len(shape) == 4 else shape[::-1],
        np.dtype("float32" if short else str(tensor.dtype).removeprefix("torch.")),
        read,
    )


def keras_layout(array: np.ndarray) -> np.ndarray:
    """PyTorch has the output channels first, Keras last."""
    return np.transpose(array, (2, 3, 1, 0)) if array.ndim == 4 else array.T
