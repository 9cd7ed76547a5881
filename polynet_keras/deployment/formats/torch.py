"""PyTorch, written by `torch.export` on Keras's PyTorch backend."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

from polynet_keras.deployment.formats.format import Format, Runner

if TYPE_CHECKING:
    import keras

# PyTorch would read the pickles in the file a second time, then with whatever they name and run, where they are not of
# tensors alone. This switch of its own forbids that; it has no argument for it.
STRICT = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"


def _write(path: Path, model: "keras.Model", *_: object) -> None:
    import torch

    model.eval()
    model.export(str(path), format="torch", verbose=False, dynamic_shapes={0: torch.export.Dim("batch", min=1)})


def _load(path: Path, threads: int | None) -> Runner:
    import torch

    if threads:
        torch.set_num_threads(threads)
    before = os.environ.get(STRICT)
    os.environ[STRICT] = "1"
    try:
        module = torch.export.load(path).module()
    finally:
        if before is None:
            del os.environ[STRICT]
        else:
            os.environ[STRICT] = before

    def run(images):
        with torch.inference_mode():
            return module(torch.from_numpy(images)).numpy()

    return run


TORCH = Format(
    "torch",
    "model.pt2",
    {"float32": ()},
    _write,
    _load,
    backend="torch",
    fails_before={"keras": "3.15"},  # the first version that writes it
    fails_from_python="0",
)
