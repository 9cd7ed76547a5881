"""A small network in a file as the publishers of PolyNet publish theirs."""

from pathlib import Path
from typing import NamedTuple

import keras
import numpy as np

from polynet_keras import PolyNet
from polynet_keras.pretrained import conversion

STRUCTURE = "1 x [ir] | 1 x [ir] | 1 x [ir]"


class SmallPublished(NamedTuple):
    """The file; the name in the network of each layer in it; images, and the probabilities that the network gives."""

    file: Path
    table: dict[str, str]
    x: np.ndarray
    expected: np.ndarray


def small(**arguments):
    return PolyNet(
        **{"weights": None, "structure": STRUCTURE, "width": 0.1, "input_shape": (75, 75, 3), "classes": 4} | arguments
    )


def small_published(folder: Path) -> SmallPublished:
    """Writes `small.pth` as pretrainedmodels would. Its residual factors, which no such file has, are the released."""
    import torch

    model = small()
    layers = [layer.name for layer in model.layers if layer.weights and "sum" not in layer.name]
    table = {f"module{number}": name for number, name in enumerate(layers)}
    rng = np.random.default_rng(0)
    state = {}
    names = {source: {ours: theirs for theirs, ours in kind.items()} for source, kind in conversion.TORCH_NAMES.items()}
    for source, name in table.items():
        for variable in model.get_layer(name).weights:
            value = rng.uniform(0.5, 1.5, variable.shape).astype("float32")
            variable.assign(value)
            value = value.transpose(3, 2, 0, 1) if value.ndim == 4 else value.T
            key = f"{source}.{names[conversion._kind(name)][variable.name]}"
            state[key] = torch.from_numpy(np.ascontiguousarray(value))
    file = folder / "small.pth"
    torch.save(state, file)
    x = rng.normal(size=(2, 75, 75, 3)).astype("float32")
    return SmallPublished(file, table, x, infer(model, x))


def infer(model, x):
    return keras.ops.convert_to_numpy(model(x, training=False))
