"""The backends that are not the one of this run: the same tests there, the same numbers, and no TensorFlow."""

import json
import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

from polynet_keras import PolyNet
from polynet_keras.evaluation.predict import predict
from tests.reference import randomize

ROOT = Path(__file__).parent.parent
OTHERS = sorted({"tensorflow", "jax", "torch"} - {keras.backend.backend()})

pytestmark = pytest.mark.backends
on_others = pytest.mark.parametrize("backend", OTHERS)

WITHOUT_TENSORFLOW = """
import sys
sys.modules["tensorflow"] = None  # as if it were not installed
"""

LOGITS = """
import sys
import numpy as np
import polynet_keras
folder, structure = sys.argv[1:]
arguments = dict(structure=structure, width=0.1, input_shape=(107, 91, 3), classes=5, classifier_activation=None)
built = polynet_keras.PolyNet(weights=folder + "/net.weights.h5", **arguments)
x = np.load(folder + "/images.npy")
built.save(folder + "/saved.keras")
import keras
loaded = keras.saving.load_model(folder + "/saved.keras")
assert np.array_equal(loaded.predict(x, verbose=0), built.predict(x, verbose=0))
assert np.isfinite(polynet_keras.preprocess_input(np.ones((8, 8, 3), "uint8"))).all()
np.save(folder + "/logits.npy", loaded.predict(x, verbose=0))
"""

PREDICT = """
import json, sys
from polynet_keras.evaluation.predict import predict
folder, image, expected = sys.argv[1:]
(prediction,) = predict(folder, [image], top=10)
found, expected = dict(prediction.classes), json.loads(expected)
assert found.keys() == expected.keys()
assert all(abs(found[name] - expected[name]) < 1e-4 for name in expected), (found, expected)
"""


def without_tensorflow(backend, script):
    return script if backend == "tensorflow" else WITHOUT_TENSORFLOW + script


def run(backend, *arguments):
    environment = {**os.environ, "KERAS_BACKEND": backend, "TF_CPP_MIN_LOG_LEVEL": "2"}
    # JAX compiles for most of the time; with this it takes half as long.
    environment["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "1"
    environment.pop("PYTEST_ADDOPTS", None)  # a part of the tests is meant for this run, not for those inside
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=1500,
        check=False,
    )
    assert done.returncode == 0, f"{backend}: {done.stdout[-6000:]}\n{done.stderr[-3000:]}"
    return done.stdout


@pytest.mark.slow
@on_others
@pytest.mark.parametrize(
    "tests",
    [
        ("tests/layers", "tests/training/test_optimizers.py", "tests/data/test_preprocessing.py"),
        ("tests/models",),
        ("tests/test_applications.py", "tests/data/test_crops.py", "tests/evaluation/test_pooling.py"),
        ("tests/pretrained/test_insertion.py",),
        ("tests/deployment/test_fuse.py",),
    ],
    ids=["layers", "models", "applications", "growth", "fusing"],
)
def test_what_needs_no_tensorflow_passes(backend, tests):
    output = run(backend, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "not slow", *tests)
    print(f"{backend}: {output.splitlines()[-1]}")
    assert " passed" in output.splitlines()[-1]


@pytest.mark.slow
@on_others
def test_published_numbers(backend):
    output = run(backend, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/pretrained/test_golden.py")
    assert " passed" in output.splitlines()[-1]


@on_others
def test_logits_are_equal_without_tensorflow(backend, tmp_path):
    structure = "1 x [2-way, 3-way] | 1 x [poly-3, mpoly-2] | 1 x [mpoly-3, I + F + G + HF]"
    arguments = {"structure": structure, "width": 0.1, "input_shape": (107, 91, 3), "classes": 5}
    model = PolyNet(weights=None, classifier_activation=None, **arguments)
    randomize(model, 0)
    images = np.random.default_rng(0).normal(size=(3, 107, 91, 3)).astype("float32")
    model.save_weights(tmp_path / "net.weights.h5")
    np.save(tmp_path / "images.npy", images)
    run(backend, "-c", without_tensorflow(backend, LOGITS), str(tmp_path), structure)
    expected = model.predict(images, verbose=0)
    found = np.load(tmp_path / "logits.npy")
    np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(expected).max(), rtol=0)


@pytest.mark.slow
@on_others
def test_predict_without_tensorflow(backend, digits_run):
    for image in digits_run.samples[:2]:
        (prediction,) = predict(digits_run.folder, [image], top=10)
        expected = json.dumps(dict(prediction.classes))
        run(backend, "-c", without_tensorflow(backend, PREDICT), str(digits_run.folder), image, expected)
