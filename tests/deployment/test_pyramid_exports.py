"""Models of several maps, written with Keras's own export and run where they are meant to run."""

import os
import subprocess
import sys

import keras
import numpy as np
import pytest

from polynet_keras.deployment.fusing import fuse
from polynet_keras.evaluation.loading import TrainedModel
from tests.evaluation.test_predicting import PREPROCESSING
from tests.models.test_pyramid import LEVELS, all_maps, built, images, maps_of

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def maps():
    """A fused model of all maps, an image, and what the unfused network makes of it."""
    model = all_maps(built(75, 75))
    x = images(75, 75)
    return fuse(model), x, maps_of(model, x)


def saved_model(path):
    import tensorflow as tf

    loaded = tf.saved_model.load(path)
    return lambda x: {name: map_.numpy() for name, map_ in loaded.signatures["serving_default"](tf.constant(x)).items()}


def onnx(path):
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return lambda x: dict(zip([o.name for o in session.get_outputs()], session.run(None, {"image": x}), strict=True))


def openvino(path):
    import openvino

    compiled = openvino.Core().compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return lambda x: {output.any_name: map_ for output, map_ in compiled(x).items()}


def litert(path):
    from ai_edge_litert.interpreter import Interpreter

    runner = Interpreter(path).get_signature_runner("serving_default")
    return lambda x: runner(image=x)


@pytest.mark.parametrize(
    ("format", "file", "load"),
    [
        ("tf_saved_model", "maps", saved_model),
        ("onnx", "maps.onnx", onnx),
        ("openvino", "maps.xml", openvino),
        ("litert", "maps.tflite", litert),
    ],
)
def test_every_map_is_an_output(maps, format, file, load, tmp_path):
    model, x, expected = maps
    path = str(tmp_path / file)
    model.export(path, format=format, verbose=False)
    check(load(path)(x), expected)


def check(found, expected):
    assert sorted(found) == list(LEVELS)
    for name, map_ in expected.items():
        np.testing.assert_allclose(found[name], map_, atol=1e-4 * np.abs(map_).max())


TORCH = """
import sys
import numpy as np, torch
from polynet_keras.deployment.fusing import fuse
from tests.deployment.test_pyramid_exports import check
from tests.models.test_pyramid import all_maps, built, images, maps_of
model, x = all_maps(built(75, 75)), images(75, 75)
fused = fuse(model)
fused.eval()
fused.export(sys.argv[1], format="torch", verbose=False, dynamic_shapes={0: torch.export.Dim("batch", min=1)})
found = torch.export.load(sys.argv[1]).module()(torch.from_numpy(x))
check({name: map_.detach().numpy() for name, map_ in found.items()}, maps_of(model, x))
"""


@pytest.mark.skipif(
    tuple(map(int, keras.__version__.split(".")[:2])) < (3, 15), reason="the first Keras that writes torch"
)
def test_pytorch(tmp_path):
    environment = {**os.environ, "KERAS_BACKEND": "torch"}
    command = [sys.executable, "-c", TORCH, str(tmp_path / "maps.pt2")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]


def test_a_classifiers_export_takes_one_output(maps):
    with pytest.raises(ValueError, match="^maps: the model has 5 outputs; expected one, of classes"):
        TrainedModel("maps", all_maps(built(12 + 63, 75)), PREPROCESSING.__class__(75, 75), ("a",))
