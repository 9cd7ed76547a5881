"""A small exported model, for all tests that serve one."""

import functools
import hashlib
import shutil
import tempfile
from pathlib import Path

import keras
import numpy as np
import openvino
from sklearn.datasets import load_sample_image

from polynet_keras.data.protocol import Preprocessing
from polynet_keras.deployment.artifact import ExportCard, artifact_path, file_hashes
from polynet_keras.deployment.comparison import Comparison

CLASSES = 10
SIZE = 75


def random_net(channels: int = 3, seed: int = 0) -> keras.Model:
    """A net whose every parameter says something, so that images differ and a swapped crop or channel shows.

    It is no PolyNet: a service does not look into its model, and two convolutions are exported at once.
    """
    keras.utils.set_random_seed(seed)
    image = x = keras.Input((SIZE, SIZE, channels), name="image")
    for filters, size, strides in ((16, 7, 3), (32, 5, 2)):
        x = keras.layers.Conv2D(filters, size, strides)(x)
        x = keras.layers.ReLU()(keras.layers.BatchNormalization()(x))
    x = keras.layers.GlobalAveragePooling2D()(x)
    model = keras.Model(image, keras.layers.Dense(CLASSES, "softmax", name="predictions")(x))
    generator = np.random.default_rng(seed)
    for variable in model.weights:
        if variable.name in ("gamma", "moving_variance"):
            variable.assign(generator.uniform(0.5, 1.5, variable.shape))
        elif variable.name in ("beta", "moving_mean"):
            variable.assign(generator.normal(0, 0.1, variable.shape))
    head = model.layers[-1]
    # Photographs should differ: their logits are centred, and spread by a few.
    features = keras.Model(model.inputs, head.input).predict_on_batch(_cuts(channels))
    kernel = generator.normal(0, 1, head.kernel.shape)
    kernel *= 2 / (features @ kernel).std(axis=0).mean()
    head.kernel.assign(kernel)
    head.bias.assign(-(features @ kernel).mean(axis=0))
    return model


def _cuts(channels: int) -> np.ndarray:
    """Prepared pieces of scikit-learn's photographs."""
    photographs = [load_sample_image(name)[..., :channels] for name in ("china.jpg", "flower.jpg")]
    return np.stack(
        [protocol(channels)(photograph[:, left : left + 300]) for photograph in photographs for left in (0, 160, 320)]
    )


def protocol(channels: int = 3, **options) -> Preprocessing:
    mean, std = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)) if channels == 3 else ((0.3,), (0.35,))
    return Preprocessing(SIZE, 86, mean=mean, std=std, **options)


def save_card(folder: Path, preprocessing: Preprocessing, format: str = "openvino", name: str = "small") -> ExportCard:
    path = artifact_path(folder, format)
    card = ExportCard(
        format=format,
        precision="float32",
        name=name,
        class_names=tuple(f"class {i}" for i in range(CLASSES)),
        preprocessing=preprocessing,
        source_hash=hashlib.sha256(path.read_bytes()).hexdigest(),
        structure="",
        comparison=Comparison("nothing", 0, 0.0, 1.0),
        calibration=None,
        versions={"keras": keras.__version__},
        size=sum(file.stat().st_size for file in path.parent.rglob("*") if file.is_file()),
        files=file_hashes(folder),
    )
    card.save(folder)
    return card


@functools.cache
def exported(channels: int = 3) -> tuple[Path, keras.Model]:
    """A folder as `polynet export` leaves it, and the net that it was made of; the same at each call."""
    keep = tempfile.TemporaryDirectory()  # until the process ends
    _KEPT.append(keep)
    folder = Path(keep.name)
    model = random_net(channels)
    path = artifact_path(folder, "openvino")
    path.parent.mkdir()
    raw = folder / "saved_model"
    model.export(str(raw), format="tf_saved_model", verbose=False)
    openvino.save_model(openvino.convert_model(raw), path, compress_to_fp16=False)
    shutil.rmtree(raw)
    save_card(folder, protocol(channels))
    return folder, model


_KEPT: list[tempfile.TemporaryDirectory] = []
