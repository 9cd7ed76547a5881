"""State dicts of PyTorch: tensors alone are unpickled (`weights_only`), and none that claims more than it holds."""

import os
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from polynet_keras.basics.names import quoted, size_text
from polynet_keras.pretrained.archives import ZIP_SIGNATURE
from polynet_keras.pretrained.open_file import Source, errors_name
from polynet_keras.pretrained.stored_arrays import ACCEPTED, TABLES, Checkpoint, Format, StoredArray, keras_layout

if TYPE_CHECKING:
    import torch

TORCH_SIGNATURE = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
"""How `torch.save` began its files before PyTorch 1.6, which writes a zip archive; the published ones are older."""
WHOLE_NUMBERS = ("bool", "uint8", "int8", "int16", "int32", "int64")
"""Of PyTorch's types without a fraction, those that NumPy has by the same name."""
MIN_TORCH = (2, 6)
"""Before it, `weights_only` could be led to run code (CVE-2025-32434)."""


def read_state_dict(file: BinaryIO, budget: int) -> dict[str, "torch.Tensor"]:
    """The tensors of a file by name, mapped where the format allows it: else no file above `budget` bytes is read.

    Raises:
        ValueError: PyTorch is missing or too old, or the file holds more than tensors, or claims more than it holds;
            the message goes on after the file's name.
    """
    if find_spec("torch") is None:
        raise ValueError(
            "is a PyTorch file, but PyTorch is not installed: pip install 'torch>=2.6' (the extra `parity` has it)"
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
        # A mapped tensor takes memory when it is read, and not by its claimed size.
        state = torch.load(descriptor if mapped else file, map_location="cpu", weights_only=True, mmap=mapped)
    except Exception:  # a damaged pickle can raise anything
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
            raise ValueError(f"is a PyTorch file whose {quoted(key)} is not a plain array of numbers")
        if value.numel() * value.element_size() > value.untyped_storage().nbytes():
            raise ValueError(
                f"is a PyTorch file whose {quoted(key)} claims to be {size_text(value.shape)}, which it does not hold"
            )
    # Trained on several GPUs with DataParallel.
    prefix = "module." if all(key.startswith("module.") for key in state) else ""
    return {key.removeprefix(prefix): value for key, value in state.items()}


def checkpoint_of(state: dict[str, "torch.Tensor"], source: Source) -> Checkpoint:
    """The arrays of a state dict, in Keras's layout, of the publisher whose names of layers it has.

    Raises:
        ValueError: it is of another network.
    """
    # The number of training batches is not needed, and missing in files of PyTorch 0.4.
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
        with errors_name(source):
            return keras_layout((tensor.float() if short else tensor).detach().numpy())

    # float32 holds all values of shorter dtypes; NumPy lacks some of them.
    short = tensor.is_floating_point() and tensor.element_size() < 4
    shape = tuple(tensor.shape)
    return StoredArray(
        (*shape[2:], shape[1], shape[0]) if len(shape) == 4 else shape[::-1],
        np.dtype("float32" if short else str(tensor.dtype).removeprefix("torch.")),
        read,
    )
