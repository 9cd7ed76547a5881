"""Reading a checkpoint file, whatever it is: told from its content, never from its name."""

import io
import lzma
import os
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from importlib.util import find_spec
from typing import TYPE_CHECKING, BinaryIO

import h5py
import numpy as np

from polynet_keras.pretrained import name_maps

if TYPE_CHECKING:
    import torch

HDF5_SIGNATURE = b"\x89HDF\r\n\x1a\n"
ZIP_SIGNATURE = b"PK\x03\x04"
TORCH_SIGNATURE = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
"""How `torch.save` began its files before PyTorch 1.6, which writes a zip archive; the published ones are older."""

KERAS_MEMBER = "model.weights.h5"
MAX_BYTES = 2 << 30
"""The largest array or member of an archive that is read, five times G5: a small file can claim to be terabytes."""

DAMAGE = (OSError, EOFError, KeyError, RuntimeError, zipfile.BadZipFile, zlib.error, lzma.LZMAError)
"""What h5py and zipfile raise of damaged files and of encrypted ones."""

MIN_TORCH = (2, 6)
"""Before it, `weights_only` could be led to run code (CVE-2025-32434)."""

ACCEPTED = (
    "a .weights.h5 or .keras file of this package, a tf2cv HDF5, or a state dict of pretrainedmodels or pytorchcv"
)


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
class Checkpoint:
    """The arrays of a checkpoint file.

    Attributes:
        format: who wrote it.
        arrays: by the source's own key, in Keras's layout (a convolution's kernel is height, width, in, out).
            Of `Format.KERAS` the key is `layer/number of the variable`.
    """

    format: Format
    arrays: dict[str, np.ndarray]


def read_checkpoint(path: str | os.PathLike) -> Checkpoint:
    """Reads a checkpoint: HDF5, a PyTorch state dict, or a zip archive that holds one of them.

    Nothing is unpickled but tensors (`weights_only`), and no archive is extracted to disk.

    Raises:
        ValueError: the file is missing or damaged, of no known format or of another network, or PyTorch is needed
            and not installed; the message names the file.
    """
    with _opened(path) as (kind, file):
        return _read_hdf5(file) if kind == "HDF5" else _from_state_dict(_state_dict(file))


def torch_state_dict(path: str | os.PathLike) -> dict[str, "torch.Tensor"]:
    """The state dict in a PyTorch file, or in a zip archive of one, as it is.

    Raises:
        ValueError: as `read_checkpoint`.
    """
    with _opened(path) as (kind, file):
        if kind != "PyTorch":
            raise ValueError(f"is {kind}, not a PyTorch file")
        return _state_dict(file)


def hdf5_bytes(path: str | os.PathLike) -> bytes:
    """The HDF5 file itself, out of the zip archive that it may be in.

    Raises:
        ValueError: as `read_checkpoint`.
    """
    with _opened(path) as (kind, file):
        if kind != "HDF5":
            raise ValueError(f"is a {kind} file, not HDF5")
        return file.read()


@contextmanager
def _opened(path: str | os.PathLike) -> Iterator[tuple[str, BinaryIO]]:
    """What kind of file it is, "HDF5" or "PyTorch", and the file, taken out of its archive; errors name the file."""
    try:
        with open(path, "rb") as file:
            yield _unpacked(file)
    except DAMAGE as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise ValueError(f"weights={os.fspath(path)!r} cannot be read: {reason}") from None
    except ValueError as error:
        raise ValueError(f"weights={os.fspath(path)!r} {error}") from None


def _unpacked(file: BinaryIO, inside_archive: bool = False) -> tuple[str, BinaryIO]:
    signature = file.read(len(TORCH_SIGNATURE))
    file.seek(0)
    if signature.startswith(HDF5_SIGNATURE):
        return "HDF5", file
    if signature == TORCH_SIGNATURE:
        return "PyTorch", file
    if not signature.startswith(ZIP_SIGNATURE):
        raise ValueError(f"is no checkpoint; expected {ACCEPTED}")
    with zipfile.ZipFile(file) as archive:
        names = [name for name in archive.namelist() if not name.endswith("/")]
        if KERAS_MEMBER in names:
            return "HDF5", _member(archive, KERAS_MEMBER)
        if not any(name.endswith("/data.pkl") for name in names):
            if inside_archive or len(names) != 1:
                raise ValueError(f"is an archive of {len(names)} files, not of one checkpoint; expected {ACCEPTED}")
            return _unpacked(_member(archive, names[0]), inside_archive=True)
    file.seek(0)  # since PyTorch 1.6
    return "PyTorch", file


def _member(archive: zipfile.ZipFile, name: str) -> BinaryIO:
    """A member's bytes in memory."""
    with archive.open(name) as member:
        content = member.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise ValueError(f"is an archive whose {name!r} is larger than {MAX_BYTES:,} bytes")
    return io.BytesIO(content)


def _read_hdf5(file: BinaryIO) -> Checkpoint:
    with h5py.File(file, "r") as root:
        if "layers" in root:
            return Checkpoint(Format.KERAS, dict(_keras_arrays(_group(root, "layers"))))
        if any(name.startswith("layer_names") for name in root.attrs):
            return Checkpoint(Format.TF2CV, dict(_layer_wise_arrays(root)))
        raise ValueError(
            f"is an HDF5 file with {list(root)[:3]}, not with the layers of a network; expected {ACCEPTED}"
        )


def _keras_arrays(layers: h5py.Group) -> Iterator[tuple[str, np.ndarray]]:
    """Keras 3 files a layer under its class and a number (`conv2d_12`), and writes its name beside the variables."""
    for layer in layers:
        group = _group(layers, layer)
        if "vars" in group:
            variables = _group(group, "vars")
            for number in variables:
                yield f"{variables.attrs['name']}/{number}", _array(variables, number)


def _layer_wise_arrays(root: h5py.File) -> Iterator[tuple[str, np.ndarray]]:
    """Keras 2: a group a layer of the model's first level, and in its attributes the names of all that is below it."""
    for layer in _names(root, "layer_names"):
        group = _group(root, layer)
        for name in _names(group, "weight_names"):
            # How many scopes stand before the layer's own differs with the version of TensorFlow.
            _, _, inner = f"/{name}".partition(f"/{layer}/")
            key = f"{layer}/{inner or name}".removesuffix(":0")
            yield name_maps.without_repeats(key), _array(group, name)


def _group(parent: h5py.Group, name: str) -> h5py.Group:
    group = _own(parent, name)
    if not isinstance(group, h5py.Group):
        raise ValueError(f"is an HDF5 file in which {name!r} is no group")
    return group


def _array(parent: h5py.Group, name: str) -> np.ndarray:
    """A dataset's values; a file may claim any size for them."""
    dataset = _own(parent, name)
    if not isinstance(dataset, h5py.Dataset) or dataset.dtype.kind not in "fiub":
        raise ValueError(f"is an HDF5 file in which {name!r} is no array of numbers")
    if dataset.external or dataset.is_virtual:
        raise ValueError(f"is an HDF5 file whose {name!r} is in another file")
    if dataset.size * dataset.dtype.itemsize > MAX_BYTES:
        raise ValueError(f"is an HDF5 file whose {name!r} claims the shape {dataset.shape}, over {MAX_BYTES:,} bytes")
    return dataset[()]


def _own(parent: h5py.Group, name: str):
    """What the file itself has under a name: links could lead to any file of this machine."""
    for part in name.split("/"):
        if not isinstance(parent.get(part, getlink=True), h5py.HardLink):
            raise ValueError(f"is an HDF5 file whose {name!r} is a link")
        parent = parent[part]
    return parent


def _names(group: h5py.Group, attribute: str) -> list[str]:
    """A list of names among the attributes, split as `weight_names0`, `weight_names1`, … if it is too long for one."""
    chunks = [attribute] if attribute in group.attrs else []
    while f"{attribute}{len(chunks)}" in group.attrs:
        chunks.append(f"{attribute}{len(chunks)}")
    return [name.decode() if isinstance(name, bytes) else str(name) for key in chunks for name in group.attrs[key]]


def _state_dict(file: BinaryIO) -> dict[str, "torch.Tensor"]:
    if find_spec("torch") is None:
        raise ValueError(
            "is a PyTorch file, and PyTorch is not installed: pip install 'torch>=2.6' (the extra `parity` has it)"
        )
    import torch

    if tuple(int(part) for part in torch.__version__.split(".")[:2]) < MIN_TORCH:
        raise ValueError(
            f"is a PyTorch file, which PyTorch {torch.__version__} does not read safely: pip install 'torch>=2.6'"
        )
    try:
        state = torch.load(file, map_location="cpu", weights_only=True)
    except Exception:  # of a damaged pickle anything can come
        # PyTorch's own message advises to load it without weights_only, which would run the file's code.
        raise ValueError("is a PyTorch file that is damaged, or holds more than tensors; neither is loaded") from None
    if isinstance(state, dict) and isinstance(state.get("state_dict"), dict):
        state = state["state_dict"]  # how training scripts save it, with the epoch and the like
    if not isinstance(state, dict) or not state or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise ValueError("is a PyTorch file, but not a state dict: a mapping from names to tensors")
    # Trained on several GPUs with DataParallel.
    prefix = "module." if all(str(key).startswith("module.") for key in state) else ""
    return {str(key).removeprefix(prefix): value for key, value in state.items()}


def _from_state_dict(state: dict[str, "torch.Tensor"]) -> Checkpoint:
    # How many batches training saw: not needed, and not there in files of PyTorch 0.4.
    keys = [key for key in state if not key.endswith(".num_batches_tracked")]
    layers = {key.rpartition(".")[0] for key in keys}
    known = {format_: len(layers & TABLES[format_]().keys()) for format_ in (Format.CADENE, Format.PYTORCHCV)}
    best = max(known, key=lambda format_: known[format_])
    if not known[best]:
        raise ValueError(
            f"is a state dict of another network: it begins with {next(iter(state))!r}; expected {ACCEPTED}"
        )
    return Checkpoint(best, {key: keras_layout(state[key].detach().float().numpy()) for key in keys})


def keras_layout(array: np.ndarray) -> np.ndarray:
    """PyTorch has the output channels first, Keras last."""
    return np.transpose(array, (2, 3, 1, 0)) if array.ndim == 4 else array.T
