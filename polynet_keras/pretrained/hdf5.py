"""HDF5 files of weights: arrays of numbers that are whole in the file, and nothing else."""

import os
import struct
from collections.abc import Iterator
from typing import BinaryIO

import h5py
import numpy as np

from polynet_keras.basics.names import quoted, size_text
from polynet_keras.pretrained import name_maps
from polynet_keras.pretrained.open_file import Source, errors_name
from polynet_keras.pretrained.stored_arrays import ACCEPTED, Checkpoint, Format, StoredArray

HDF5_SIGNATURE = b"\x89HDF\r\n\x1a\n"
MAX_ENTRIES = 50_000
"""Of an HDF5 group. G5 has 2,700 arrays."""
SCANNED = 1 << 20
MIN_HEAP, MAX_HEAP = 4096, 4 << 20
"""Bytes of one of an HDF5 file's heaps, which hold the names of layers."""
MAX_NAME = 1_000


def read_hdf5(root: h5py.File, source: Source) -> Checkpoint:
    """The layers' arrays, which are read while the file is open; `source` is for messages.

    Raises:
        ValueError: the file holds no layers, or more than arrays; the message goes on after the file's name.
    """
    if "layers" in root:
        return Checkpoint(Format.KERAS, _once(_keras_arrays(_group(root, "layers"), source)))
    if any(_text(name).startswith("layer_names") for name in root.attrs):
        return Checkpoint(Format.TF2CV, _once(_layer_wise_arrays(root, source)))
    found = ", ".join(quoted(name) for name in _entries(root)[:3])
    raise ValueError(f"is an HDF5 file with [{found}], not with the layers of a network; expected {ACCEPTED}")


def check_arrays(root: h5py.File) -> None:
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


def check_heaps(file: BinaryIO) -> None:
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

    def note(name: str | bytes, entry: h5py.Group | h5py.Dataset) -> bool | None:
        if isinstance(entry, h5py.Dataset):
            found.append(_text(name))
        count[0] += 1
        return True if count[0] > MAX_ENTRIES else None

    count = [0]
    if root.visititems(note):
        raise ValueError(f"is an HDF5 file of more than {MAX_ENTRIES:,} groups and arrays")
    for path in found:
        layer, _, name = path.partition("/")
        # The number of scopes before the layer's own differs between versions of TensorFlow.
        _, _, inner = f"/{name}".partition(f"/{layer}/")
        key = f"{layer}/{inner or name}".removesuffix(":0")
        yield name_maps.without_repeats(key), _array(root, path, source)


def _entries(group: h5py.Group) -> list[str]:
    """The names in a group, which h5py lists all at once."""
    if len(group) > MAX_ENTRIES:
        raise ValueError(f"is an HDF5 file with {len(group):,} names in one group, more than {MAX_ENTRIES:,}")
    return [_text(name) for name in group]


def _text(name: str | bytes) -> str:
    """A name, of which h5py gives the bytes where they are not UTF-8."""
    if isinstance(name, bytes):
        raise ValueError(f"is an HDF5 file with the name {quoted(name)}, which is not UTF-8 text")
    return name


def _group(parent: h5py.Group, name: str) -> h5py.Group:
    group = _own(parent, name)
    if not isinstance(group, h5py.Group):
        raise ValueError(f"is an HDF5 file in which {quoted(name)} is not a group")
    return group


def _array(parent: h5py.Group, name: str, source: Source) -> StoredArray:
    """A dataset whose values are all in the file, one after the other, as Keras writes it."""
    dataset, place = _own(parent, name), _place(parent, name)
    dtype = _dtype(dataset)
    if dtype is None:
        raise ValueError(f"is an HDF5 file in which {place} is not an array of numbers")
    if dataset.external or dataset.is_virtual:
        raise ValueError(f"is an HDF5 file whose {place} is in another file")
    if dataset.chunks is not None:
        # A chunk can unpack to any size, and reading takes memory for each chunk.
        raise ValueError(
            f"is an HDF5 file whose {place} of {size_text(dataset.shape)} is compressed or in chunks, which Keras "
            "never writes; `h5repack -l CONTI -f NONE FILE NEW` makes it readable"
        )
    if dataset.id.get_storage_size() < dataset.size * dataset.dtype.itemsize:
        raise ValueError(
            f"is an HDF5 file whose {place} claims to be {size_text(dataset.shape)}, which it does not hold"
        )

    def read() -> np.ndarray:
        with errors_name(source):
            values = dataset[()]
            return _from_bfloat16(values) if values.dtype.kind == "V" else values

    return StoredArray(dataset.shape, dtype, read)


def _dtype(entry: h5py.Group | h5py.Dataset) -> np.dtype | None:
    """The dtype in which the numbers of a dataset are read; `None` if it is none, or holds other things."""
    try:
        dtype = entry.dtype if isinstance(entry, h5py.Dataset) else None
    except TypeError:  # HDF5 has types that NumPy does not have
        return None
    if dtype == np.dtype("V2"):
        # HDF5 has no bfloat16: Keras writes it as two bytes, with a note of the type.
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
        raise ValueError(f"is an HDF5 file in which a layer's name is not a text of at most {MAX_NAME} characters")
    return name


def _text_attribute(entry: h5py.Group | h5py.Dataset, key: str) -> str | None:
    """Returns an attribute, or `None` if it is missing or is not text of at most `MAX_NAME` characters."""
    if key not in entry.attrs:
        return None
    attribute = entry.attrs.get_id(key)
    text = entry.attrs[key] if attribute.shape == () and attribute.dtype.kind in "SO" else None
    text = text.decode() if isinstance(text, bytes) else text
    return text if isinstance(text, str) and len(text) <= MAX_NAME else None
