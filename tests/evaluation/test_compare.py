"""The comparison with a publisher's implementation, where small stand-ins answer for the real ones.

The real ones are in `tests/pretrained/test_parity.py`.
"""

import dataclasses
import importlib.metadata
import sys

import keras
import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_sample_image

from polynet_keras.data.pixels import normalize
from polynet_keras.data.protocol import Preprocessing
from polynet_keras.evaluation import parity
from polynet_keras.evaluation.parity import Parity, compare, is_installed, pillow_crop, published_logits
from polynet_keras.pretrained.stored_arrays import Format

PREPROCESSING = Preprocessing(20, 24, mean=(0.4, 0.5, 0.6), std=(0.2, 0.25, 0.3))
CLASSES = 3


@pytest.fixture
def photograph():
    """As it is prepared; float32 (1, 20, 20, 3)."""
    crop = PREPROCESSING.crop(load_sample_image("china.jpg"))
    return normalize(crop, PREPROCESSING.mean, PREPROCESSING.std, "channels_last")[None]


@pytest.fixture(params=["channels_last", "channels_first"])
def model(request):
    """Gives the values of an image at the left of its second row: in this order whatever the data format is."""
    keras.config.set_image_data_format(request.param)
    first = request.param == "channels_first"
    inputs = keras.Input((3, 20, 20) if first else (20, 20, 3))
    return keras.Model(inputs, inputs[:, :, 1, 0] if first else inputs[:, 1, 0, :])


@pytest.mark.parametrize("factor", [1.0, 1.5, -1.0])
def test_how_far_apart_both_are(model, photograph, monkeypatch, factor):
    asked = []

    def published(format_, path, images, classes):
        asked.append((format_, path, images, classes))
        return images[:, 1, 0, :] * np.float32(factor)

    monkeypatch.setattr(parity, "is_installed", lambda format_: format_ is Format.CADENE)
    monkeypatch.setattr(parity, "published_logits", published)
    monkeypatch.setattr(parity, "version", lambda package: f"0.1 of {package}")
    found = compare(model, Format.CADENE, "net.pth", PREPROCESSING)
    ((format_, path, images, classes),) = asked
    assert (format_, path, classes) == (Format.CADENE, "net.pth", CLASSES)
    np.testing.assert_allclose(images, photograph, rtol=1e-6)
    assert found.reference == "pretrainedmodels 0.1 of pretrainedmodels"
    assert found.logits == pytest.approx(abs(1 - factor) / abs(factor), abs=1e-6)
    assert found.same_class is (factor > 0)
    assert type(found.logits) is type(found.preprocessing) is float
    with pytest.raises(dataclasses.FrozenInstanceError):
        found.logits = 0.0
    # Pillow rounds its result to whole levels, of which a crop of ours is at most one away.
    crop = np.asarray(PREPROCESSING.crop(load_sample_image("china.jpg")))
    expected = np.abs(crop - pillow_crop(load_sample_image("china.jpg"), PREPROCESSING).astype("float64")).max()
    assert found.preprocessing == pytest.approx(expected)
    assert 0 < expected <= 1.001


def test_without_the_implementation_only_the_preprocessing_is_compared(model, monkeypatch):
    monkeypatch.setattr(parity, "is_installed", lambda format_: False)
    found = compare(model, Format.CADENE, "net.pth", PREPROCESSING)
    assert found == Parity(None, found.preprocessing, None, None)
    assert 0 < found.preprocessing <= 1.001


def test_the_data_extra_is_needed(model, monkeypatch):
    monkeypatch.setattr("polynet_keras.basics.extras.find_spec", lambda module: None)
    with pytest.raises(ValueError, match="not installed: pillow, scikit-learn; the extra `data` has it"):
        compare(model, Format.CADENE, "net.pth", PREPROCESSING)


@pytest.mark.parametrize("resize", ["square", "shorter_side"])
def test_pillows_crop_is_torchvisions(resize):
    """By hand: a picture of 60×40 to 36×24 or 24×24, and of it the middle 20×20."""
    picture = np.random.default_rng(0).integers(0, 256, (40, 60, 3), "uint8")
    size = (36, 24) if resize == "shorter_side" else (24, 24)
    resized = np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.BILINEAR))
    left = (size[0] - 20) // 2
    found = pillow_crop(picture, Preprocessing(20, 24, resize=resize))
    np.testing.assert_array_equal(found, resized[2:22, left : left + 20])


@pytest.mark.parametrize(
    ("format_", "needs"),
    [
        (Format.PYTORCHCV, ("torch", "pytorchcv")),
        (Format.CADENE, ("torch", "pretrainedmodels")),
        (Format.TF2CV, ("tensorflow", "tf_keras", "tf2cv")),
    ],
    ids=str,
)
def test_which_packages_an_implementation_needs(monkeypatch, format_, needs):
    for missing in (None, *needs):
        monkeypatch.setattr(parity, "find_spec", lambda name, missing=missing: name if name != missing else None)
        assert is_installed(format_) is (missing is None)
    monkeypatch.setattr(parity, "find_spec", lambda name: name if name in needs else None)
    assert is_installed(format_)
    assert not is_installed(Format.KERAS)


def torch_network(classes):
    """Of channels first, with a dropout that must not act; its only parameter is a factor."""
    import torch

    class Network(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.factor = torch.nn.Parameter(torch.ones(()))
            self.dropout = torch.nn.Dropout(0.9)

        def forward(self, x):
            assert x.shape[1] == 3
            assert not torch.is_grad_enabled()
            return self.dropout(x.mean((2, 3)) * self.factor).repeat(1, classes)

    return Network()


@pytest.mark.parametrize("format_", [Format.PYTORCHCV, Format.CADENE], ids=str)
def test_logits_of_pytorch_networks(monkeypatch, tmp_path, format_):
    torch = pytest.importorskip("torch", reason="writes the .pth files (extra `parity`)")
    name = {Format.PYTORCHCV: "pytorchcv_network", Format.CADENE: "pretrainedmodels_network"}[format_]
    monkeypatch.setattr(parity, name, torch_network)
    torch.save({"factor": torch.tensor(2.0)}, tmp_path / "net.pth")
    images = np.random.default_rng(0).normal(size=(2, 5, 5, 3)).astype("float32")
    found = published_logits(format_, tmp_path / "net.pth", images, 2)
    assert isinstance(found, np.ndarray)
    np.testing.assert_allclose(found, np.tile(2 * images.mean((1, 2)), (1, 2)), rtol=1e-5)
    # What PyTorch says of each key is one line, and no longer than a person reads.
    torch.save({f"another{number}": torch.tensor(2.0) for number in range(100)}, tmp_path / "other.pth")
    with pytest.raises(ValueError, match=r"other.pth' is not of the publisher's network: .*") as raised:
        published_logits(format_, tmp_path / "other.pth", images, 2)
    _, reason = str(raised.value).split("network: ")
    assert 'Missing key(s) in state_dict: "factor". Unexpected key(s) in state_dict: "another0", "another1"' in reason
    assert len(reason) == 300


@pytest.mark.parametrize("classes", [None, 7])
def test_networks_of_the_publishers(monkeypatch, tmp_path, classes):
    """The classes reach them; pretrainedmodels' one file is loaded without its package, which needs torchvision."""
    arguments = () if classes is None else (classes,)
    package = tmp_path / "pretrainedmodels" / "models"
    package.mkdir(parents=True)
    (package.parent / "__init__.py").write_text("raise ImportError('no torchvision')")
    (package / "polynet.py").write_text("def PolyNet(num_classes): return ('cadene', num_classes, __name__)")
    package = tmp_path / "pytorchcv" / "models"
    package.mkdir(parents=True)
    for folder in (package, package.parent):
        (folder / "__init__.py").touch()
    (package / "polynet.py").write_text("def polynet(num_classes): return ('pytorchcv', num_classes)")

    class Distribution(importlib.metadata.Distribution):
        def read_text(self, filename):
            return None

        def locate_file(self, path):
            return tmp_path / path

    monkeypatch.setattr(parity, "distribution", {"pretrainedmodels": Distribution()}.__getitem__)
    monkeypatch.syspath_prepend(tmp_path)
    for name in [name for name in sys.modules if name.partition(".")[0] == "pytorchcv"]:
        monkeypatch.delitem(sys.modules, name)
    try:
        assert parity.pretrainedmodels_network(*arguments) == ("cadene", classes or 1000, "pretrainedmodels_polynet")
        assert parity.pytorchcv_network(*arguments) == ("pytorchcv", classes or 1000)
    finally:
        for name in [name for name in sys.modules if name.partition(".")[0] == "pytorchcv"]:
            del sys.modules[name]


FAKE_TF2CV = """
import os
import numpy as np

class Network:
    def __init__(self, classes):
        self.classes = classes
    def build(self, shape):
        self.shape = shape
    def load_weights(self, path):
        assert path.endswith(".h5")  # Keras 2 takes any other file for a checkpoint of TensorFlow
        content = open(path, "rb").read()
        if content != b"weights":
            raise SystemExit(content.decode())
    def __call__(self, images, training):
        assert not training
        assert self.shape == (1, 331, 331, 3)
        assert os.environ["TF_USE_LEGACY_KERAS"] == "1"
        assert os.environ["TF_CPP_MIN_LOG_LEVEL"] == "2"  # what TensorFlow logs would stand after the reason
        logits = np.repeat(images.sum((1, 2, 3))[:, None], self.classes, 1)
        return type("Tensor", (), {"numpy": lambda self: logits})()

def polynet(classes):
    return Network(classes)
"""


def test_logits_of_tf2cv_come_from_a_process_of_its_own(monkeypatch, tmp_path):
    package = tmp_path / "tf2cv" / "models"
    package.mkdir(parents=True)
    for folder in (package, package.parent):
        (folder / "__init__.py").touch()
    (package / "polynet.py").write_text(FAKE_TF2CV)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.delenv("TF_CPP_MIN_LOG_LEVEL", raising=False)
    content = b"weights"
    monkeypatch.setattr(parity, "hdf5_bytes", lambda path: content)
    images = np.random.default_rng(0).normal(size=(2, 331, 331, 3)).astype("float32")
    found = published_logits(Format.TF2CV, "net.h5", images, 5)
    np.testing.assert_allclose(found, np.repeat(images.sum((1, 2, 3))[:, None], 5, 1))
    content = b"first line\nit is of another network"
    with pytest.raises(ValueError, match="tf2cv does not load 'net.h5': it is of another network$"):
        published_logits(Format.TF2CV, "net.h5", images, 5)
    for length in (parity.MAX_REASON, parity.MAX_REASON + 1):
        content = b"x\n" + b"y" * length
        with pytest.raises(ValueError, match="y") as raised:
            published_logits(Format.TF2CV, "net.h5", images, 5)
        reason = str(raised.value).removeprefix("tf2cv does not load 'net.h5': ")
        assert reason == ("y" * length if length <= parity.MAX_REASON else "y" * (length - 2) + "…")
    content = b""
    with pytest.raises(ValueError, match="tf2cv does not load 'net.h5': it ended without a message$"):
        published_logits(Format.TF2CV, "net.h5", images, 5)
