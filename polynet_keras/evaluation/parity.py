"""Comparison of a converted checkpoint with its publisher's implementation, on the same photograph."""

import io
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from importlib.machinery import SourceFileLoader
from importlib.metadata import distribution, version
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

import keras
import numpy as np

from polynet_keras.basics.extras import require_extra
from polynet_keras.data.pixels import normalize
from polynet_keras.data.protocol import Preprocessing
from polynet_keras.pretrained.formats import hdf5_bytes, torch_state_dict
from polynet_keras.pretrained.open_file import Source, name_of
from polynet_keras.pretrained.stored_arrays import Format

MAX_REASON = 300
"""Most characters quoted from an implementation's error about a file that it does not load."""


@dataclass(frozen=True)
class Parity:
    """Differences between this package's numbers and the publisher's, on one photograph.

    Attributes:
        reference: the publisher's implementation and its version; `None` if it is not installed.
        preprocessing: the largest difference of a pixel, in levels of 0 to 255, from torchvision's steps with Pillow.
        logits: the largest difference of a logit, relative to the largest logit; `None` without a reference.
        same_class: whether both predict the same class; `None` without a reference.
    """

    reference: str | None
    preprocessing: float
    logits: float | None
    same_class: bool | None


def compare(model: keras.Model, format_: Format, path: Source, preprocessing: Preprocessing) -> Parity:
    """Runs a photograph that ships with scikit-learn (china.jpg) through both implementations.

    Args:
        model: the network of the converted checkpoint; its outputs are logits.
        format_: the publisher's format.
        path: the published file, or the open file.
        preprocessing: preprocessing of the photograph.
    """
    require_extra("data", "PIL", "sklearn")
    from sklearn.datasets import load_sample_image

    photograph = load_sample_image("china.jpg")
    difference = float(np.abs(preprocessing.crop(photograph) - pillow_crop(photograph, preprocessing)).max())
    image = normalize(preprocessing.crop(photograph), preprocessing.mean, preprocessing.std, "channels_last")[None]
    if not is_installed(format_):
        return Parity(None, difference, None, None)
    theirs = published_logits(format_, path, image, model.output_shape[-1])
    first = keras.config.image_data_format() == "channels_first"
    ours = model.predict_on_batch(np.moveaxis(image, -1, 1) if first else image)
    return Parity(
        f"{format_} {version(format_)}",
        difference,
        float(np.abs(ours - theirs).max() / np.abs(theirs).max()),
        bool(ours.argmax() == theirs.argmax()),
    )


def pillow_crop(image: np.ndarray, preprocessing: Preprocessing) -> np.ndarray:
    """Returns the crop as torchvision's `Resize` and `CenterCrop` make it of a Pillow image; uint8."""
    from PIL import Image

    height, width = preprocessing.resized_shape(*image.shape[:2])
    resized = Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR)
    top, left, bottom, right = preprocessing.crop_box(height, width)
    return np.asarray(resized.crop((left, top, right, bottom)))


def is_installed(format_: Format) -> bool:
    """Whether a publisher's implementation is installed."""
    needs = {
        Format.PYTORCHCV: ("torch", "pytorchcv"),
        Format.CADENE: ("torch", "pretrainedmodels"),
        Format.TF2CV: ("tensorflow", "tf_keras", "tf2cv"),
    }
    return format_ in needs and all(find_spec(module) for module in needs[format_])


def published_logits(format_: Format, path: Source, images: np.ndarray, classes: int) -> np.ndarray:
    """Returns the logits of the publisher's implementation for preprocessed images.

    Args:
        format_: the publisher's format; its implementation is installed.
        path: the published file, or the open file.
        images: float32 array (batch, 331, 331, 3).
        classes: number of classes of the classifier in the file.

    Returns:
        float32 array (batch, classes).
    """
    if format_ is Format.TF2CV:
        return _tf2cv_logits(path, images, classes)
    build: Callable = {Format.PYTORCHCV: pytorchcv_network, Format.CADENE: pretrainedmodels_network}[format_]
    return _torch_logits(build(classes), path, images)


def pytorchcv_network(classes: int = 1000):
    from pytorchcv.models.polynet import polynet

    return polynet(num_classes=classes)


def pretrainedmodels_network(classes: int = 1000):
    """Loads the network from its single source file: the package itself would import torchvision."""
    file = distribution("pretrainedmodels").locate_file("pretrainedmodels/models/polynet.py")
    loader = SourceFileLoader("pretrainedmodels_polynet", str(file))
    module = ModuleType(loader.name)
    loader.exec_module(module)
    return module.PolyNet(num_classes=classes)


def _torch_logits(net, path: Source, images: np.ndarray) -> np.ndarray:
    import torch

    try:
        net.load_state_dict(torch_state_dict(path))
    except RuntimeError as error:
        reason = _shortened(" ".join(str(error).split()))  # PyTorch's own has a line for each key
        raise ValueError(f"{name_of(path)!r} is not of the publisher's network: {reason}") from None
    with torch.no_grad():
        return net.eval()(torch.from_numpy(np.ascontiguousarray(np.moveaxis(images, -1, 1)))).numpy()


TF2CV_SCRIPT = """
import sys
import numpy as np
from tf2cv.models.polynet import polynet
weights, images, logits, classes = sys.argv[1:]
net = polynet(classes=int(classes))
net.build((1, 331, 331, 3))
net.load_weights(weights)
np.save(logits, net(np.load(images), training=False).numpy())
"""


def _tf2cv_logits(path: Source, images: np.ndarray, classes: int) -> np.ndarray:
    """Computes logits in another process: tf2cv needs Keras 2, which TensorFlow selects by an environment variable."""
    with tempfile.TemporaryDirectory() as folder:
        weights, inputs, logits = (os.path.join(folder, name) for name in ("net.h5", "images.npy", "logits.npy"))
        Path(weights).write_bytes(hdf5_bytes(path))
        np.save(inputs, images)
        done = subprocess.run(
            [sys.executable, "-c", TF2CV_SCRIPT, weights, inputs, logits, str(classes)],
            env={**os.environ, "TF_USE_LEGACY_KERAS": "1", "TF_CPP_MIN_LOG_LEVEL": "2"},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            reason = (done.stderr.strip() or "it ended without a message").splitlines()[-1]
            raise ValueError(f"tf2cv does not load {name_of(path)!r}: {_shortened(reason)}")
        return np.load(io.BytesIO(Path(logits).read_bytes()))


def _shortened(reason: str) -> str:
    return reason if len(reason) <= MAX_REASON else f"{reason[: MAX_REASON - 1]}…"
