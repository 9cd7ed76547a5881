"""Every published PolyNet, random weights in its own file format, through `PolyNet(weights=PATH)`: equal numbers."""

import os
import re
import subprocess
import sys
import zipfile

import keras
import numpy as np
import pytest
from sklearn.datasets import load_sample_image

from polynet_keras import PolyNet, list_structures, preprocess_input
from polynet_keras.cli.main import main
from polynet_keras.evaluation.parity import Parity, pretrainedmodels_network, pytorchcv_network

torch = pytest.importorskip("torch", reason="the published networks are PyTorch's (extra `parity`)")
pytestmark = pytest.mark.slow

TOLERANCE = 1e-4
TRUNK = (384, 1152, 2048)
"""Channels between the modules: the normalizations of the residual paths' projections have as many."""


@pytest.fixture(scope="module")
def images():
    """Sixteen crops of two photographs, all different; float32 (16, 331, 331, 3), prepared for the network."""
    rng = np.random.default_rng(0)
    crops = []
    for i in range(16):
        pixels = load_sample_image(("china.jpg", "flower.jpg")[i % 2])
        top, left = rng.integers(0, pixels.shape[0] - 331), rng.integers(0, pixels.shape[1] - 331)
        crops.append(np.rot90(pixels[top : top + 331, left : left + 331], i // 4))
    return preprocess_input(np.stack(crops).astype("float32"))


def randomized(net, seed, images):
    """Random parameters, chosen so that the images are told apart and rounding errors do not grow from layer to layer.

    With statistics that are not the images' own, all images look alike after 120 layers; with residual paths as strong
    as the shortcut, a random net is chaotic: the published implementations then differ by 1e-2 from each other's sums.
    """
    torch.manual_seed(seed)
    for module in net.modules():
        if isinstance(module, (torch.nn.Conv2d, torch.nn.Linear)):
            torch.nn.init.normal_(module.weight, 0, module.weight[0].numel() ** -0.5)
            if module.bias is not None:
                torch.nn.init.normal_(module.bias, 0, 0.2)
        elif isinstance(module, torch.nn.BatchNorm2d):
            bounds = (0.02, 0.1) if module.num_features in TRUNK else (0.5, 1.5)
            torch.nn.init.uniform_(module.weight, *bounds)
            torch.nn.init.normal_(module.bias, 0, 0.2)
            module.momentum = 1.0
    with torch.no_grad():
        net.train()(torch.from_numpy(images[::2]).permute(0, 3, 1, 2))
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean += 0.1 * torch.randn_like(module.running_mean) * module.running_var.sqrt()
            module.running_var *= torch.empty_like(module.running_var).uniform_(0.8, 1.25)
    logits, _ = torch_outputs(net.eval(), images)
    head(net).bias.data -= torch.from_numpy(logits.mean(0))
    return net


def head(net):
    return net.output.fc if hasattr(net, "output") else net.last_linear


def torch_outputs(net, images):
    """Logits and the features before the head, averaged over positions."""
    with torch.no_grad():
        features = net.features(torch.from_numpy(images).permute(0, 3, 1, 2))
        pooled = features.mean((2, 3))
        return head(net)(pooled).numpy(), pooled.numpy()


def check(path, images, logits, features):
    assert np.isfinite(logits).all()
    assert len(set(logits.argmax(1))) > 1
    model = PolyNet(weights=path, classifier_activation=None)
    both = keras.Model(model.input, [model.output, model.get_layer("avg_pool").output])
    found, pooled = both.predict(images, batch_size=4, verbose=0)
    np.testing.assert_allclose(found, logits, rtol=0, atol=TOLERANCE * np.abs(logits).max())
    np.testing.assert_array_equal(found.argmax(1), logits.argmax(1))
    np.testing.assert_allclose(pooled, features, rtol=0, atol=TOLERANCE * np.abs(features).max())
    headless = PolyNet(weights=path, include_top=False, pooling="avg", input_shape=(331, 331, 3))
    found = headless.predict(images[:4], batch_size=4, verbose=0)
    np.testing.assert_allclose(found, features[:4], rtol=0, atol=TOLERANCE * np.abs(features).max())


def converts(capsys, source, target):
    """`polynet convert` says what it found and how far both sides are apart; its file is the same network."""
    code = main(["convert", str(source), f"--output={target}"])
    captured = capsys.readouterr()
    assert code == 0, captured.err
    assert "2,567 arrays, 95,727,688 values" in captured.out
    assert float(re.search(r"preprocessing:  at most (\d\.\d+) of 255", captured.out)[1]) <= 1.001
    difference, _, verdict = re.search(r"logits: +(\S+) of the largest from (.*)'s, (.*)", captured.out).groups()
    assert float(difference) < TOLERANCE
    assert verdict == "the same class"
    return captured.out


def test_pytorchcv(images, tmp_path, capsys):
    net = pytorchcv_network()
    normalizations = [module for module in net.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    assert {module.eps for module in normalizations} == {1e-5}
    assert {module.momentum for module in normalizations} == {0.1}
    randomized(net, 1, images)
    path = tmp_path / "polynet.pth.zip"
    torch.save(net.state_dict(), tmp_path / "polynet.pth")
    with zipfile.ZipFile(path, "w") as archive:
        archive.write(tmp_path / "polynet.pth", "polynet.pth")
    check(path, images, *torch_outputs(net, images))
    out = converts(capsys, tmp_path / "polynet.pth", tmp_path / "converted.weights.h5")
    assert "found:          pytorchcv's names of layers" in out
    model = PolyNet(weights=tmp_path / "converted.weights.h5", classifier_activation=None)
    expected = net(torch.from_numpy(images[:1]).permute(0, 3, 1, 2)).detach().numpy()
    found = model.predict(images[:1], verbose=0)
    np.testing.assert_allclose(found, expected, rtol=0, atol=TOLERANCE * np.abs(expected).max())


def test_other_classes_are_converted_too(tmp_path, capsys):
    path = tmp_path / "polynet.pth"
    torch.save(pytorchcv_network(classes=12).state_dict(), path)
    assert main(["convert", str(path), f"--output={tmp_path}/net.weights.h5"]) == 0
    assert "12 classes" in capsys.readouterr().out
    model = PolyNet(weights=tmp_path / "net.weights.h5", classes=12)
    bias = torch.load(path, weights_only=True)["output.fc.bias"].numpy()
    np.testing.assert_array_equal(model.get_layer("predictions").bias, bias)


def test_a_bad_conversion_leaves_no_file(tmp_path, monkeypatch, capsys):
    path = tmp_path / "polynet.pth"
    torch.save(pytorchcv_network().state_dict(), path)
    monkeypatch.setattr(
        "polynet_keras.evaluation.converting.compare_with_publisher",
        lambda *_: Parity("pytorchcv 0", 0.5, 2 * TOLERANCE, True),
    )
    assert main(["convert", str(path), f"--output={tmp_path}/net.weights.h5"]) == 1
    assert "differ by 2.0e-04 of the largest from those of pytorchcv 0, more than 0.0001; nothing was written" in (
        capsys.readouterr().err
    )
    assert list(tmp_path.iterdir()) == [path]


def test_pretrainedmodels(images, tmp_path, capsys):
    net = randomized(pretrainedmodels_network(), 2, images)
    path = tmp_path / "polynet.pth"
    # The format that the published file has.
    torch.save(net.state_dict(), path, _use_new_zipfile_serialization=False)
    check(path, images, *torch_outputs(net, images))
    assert "found:          pretrainedmodels's" in converts(capsys, path, tmp_path / "converted.keras")
    model = keras.saving.load_model(tmp_path / "converted.keras")
    logits, _ = torch_outputs(net, images[:1])
    np.testing.assert_allclose(
        model.predict(images[:1], verbose=0), torch.softmax(torch.from_numpy(logits), 1).numpy(), atol=1e-5
    )


TF2CV = """
import sys
import numpy as np
from tf2cv.models.polynet import polynet
folder = sys.argv[1]
net = polynet()
net.build((1, 331, 331, 3))
rng = np.random.default_rng(3)
for variable in net.variables:
    shape, kind = tuple(variable.shape), variable.name.split("/")[-1]
    if kind.startswith("kernel"):
        value = rng.normal(0, np.prod(shape[:-1]) ** -0.5, shape)
    elif kind.startswith("gamma"):
        value = rng.uniform(*((0.02, 0.1) if shape[0] in (384, 1152, 2048) else (0.5, 1.5)), shape)
    elif kind.startswith(("beta", "bias")):
        value = rng.normal(0, 0.2, shape)
    else:
        continue
    variable.assign(value)
images = np.load(folder + "/images.npy")
for layer in net.submodules:
    if hasattr(layer, "moving_mean"):
        layer.momentum = 0.0
net(images[::2], training=True)
for layer in net.submodules:
    if hasattr(layer, "moving_mean"):
        shape, deviation = layer.moving_mean.shape, np.sqrt(layer.moving_variance.numpy())
        layer.moving_mean.assign_add(0.1 * rng.normal(size=shape) * deviation)
        layer.moving_variance.assign(layer.moving_variance * rng.uniform(0.8, 1.25, shape))
parts = np.split(images, 4)
logits = np.concatenate([net(part, training=False).numpy() for part in parts])
(bias,) = (variable for variable in net.variables if variable.shape == (1000,))
bias.assign_sub(logits.mean(0))
net.save_weights(folder + "/polynet.tf2.h5")
features = np.concatenate([net.features(part, training=False).numpy() for part in parts]).reshape(16, -1)
np.save(folder + "/features.npy", features)
np.save(folder + "/logits.npy", logits - logits.mean(0))
"""


def test_tf2cv(images, tmp_path, capsys):
    np.save(tmp_path / "images.npy", images)
    environment = {**os.environ, "TF_USE_LEGACY_KERAS": "1", "TF_CPP_MIN_LOG_LEVEL": "3"}
    subprocess.run([sys.executable, "-c", TF2CV, tmp_path], env=environment, check=True)
    path = tmp_path / "polynet.tf2.h5.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        archive.write(tmp_path / "polynet.tf2.h5", "polynet-0451-e752c86b.tf2.h5")
    check(path, images, np.load(tmp_path / "logits.npy"), np.load(tmp_path / "features.npy"))
    assert "found:          tf2cv's" in converts(capsys, tmp_path / "polynet.tf2.h5", tmp_path / "net.weights.h5")


def test_counted_macs_are_those_of_the_published_implementation():
    net = pytorchcv_network().eval()
    macs = []

    def count(module, _, output):
        macs.append(module.weight[0].numel() * output.numel())

    for module in net.modules():
        if isinstance(module, (torch.nn.Conv2d, torch.nn.Linear)):
            module.register_forward_hook(count)
    with torch.no_grad():
        net(torch.zeros(1, 3, 331, 331))
    assert sum(macs) == next(card.macs for card in list_structures() if card.name == "polynet-g5")
