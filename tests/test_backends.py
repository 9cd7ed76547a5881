"""The backends that are not the one of this run: the same tests there, the same numbers, and no TensorFlow."""

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from xml.etree import ElementTree

import keras
import numpy as np
import pytest

from polynet_keras import PolyNet
from polynet_keras.evaluation.predicting import predict
from tests.reference import randomize

ROOT = Path(__file__).parent.parent
OTHERS = sorted({"tensorflow", "jax", "torch"} - {keras.backend.backend()})

pytest_plugins = ["pytester"]
pytestmark = pytest.mark.backends
on_others = pytest.mark.parametrize("backend", OTHERS)
ALONE = "not same_bits and not two_workers and not replicas"
"""The tests that start no other processes with TensorFlow's own means."""
PYTEST = ("-m", "pytest", "-q", "-p", "no:cacheprovider")

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
logits = loaded.predict(x, verbose=0)
assert np.array_equal(logits, built.predict(x, verbose=0))
assert np.isfinite(polynet_keras.preprocess_input(np.ones((8, 8, 3), "uint8"))).all()
np.save(folder + "/logits.npy", logits)
"""

PREDICT = """
import json, sys
from polynet_keras.evaluation.predicting import predict
folder, image, expected = sys.argv[1:]
(prediction,) = predict(folder, [image], top=10)
found, expected = dict(prediction.classes), json.loads(expected)
assert found.keys() == expected.keys()
assert all(abs(found[name] - expected[name]) < 1e-4 for name in expected), (found, expected)
"""

STEP_ON_JAX = """
import json, logging, re
import jax, keras
import numpy as np
from polynet_keras import PolyNet
from polynet_keras.deployment.fusing import fuse
from polynet_keras.training.optimizers import RMSprop

keras.config.set_dtype_policy("mixed_bfloat16")
batch = jax.device_put((np.ones((2, 75, 75, 3), "float32"), np.zeros(2, "int32")))
structure = "1 x [ir] | 1 x [poly-3] | 1 x [ir]"
arguments = dict(structure=structure, width=0.1, input_shape=(75, 75, 3), classes=4, classifier_activation=None)
model = PolyNet(weights=None, **arguments)
model.compile(RMSprop(1e-3), keras.losses.SparseCategoricalCrossentropy(from_logits=True))

def batches():
    while True:
        yield batch

def fit(**arguments):
    model.fit(batches(), shuffle=False, verbose=0, **arguments)

class WithoutCopies(keras.callbacks.Callback):
    def on_train_batch_begin(self, batch, logs=None):
        jax.config.update("jax_transfer_guard_host_to_device", "disallow")
    def on_train_batch_end(self, batch, logs=None):
        jax.config.update("jax_transfer_guard_host_to_device", "allow")

class Compiled(logging.Handler):
    def emit(self, record):
        compiled.append("Compiling" in record.getMessage() and "train_step" in record.getMessage())

compiled = []
logging.getLogger("jax").addHandler(Compiled())
jax.config.update("jax_log_compiles", True)
fit(steps_per_epoch=1)
fit(steps_per_epoch=3, epochs=2, callbacks=[WithoutCopies()])
found = {"compiled": sum(compiled)}

def state_of(*groups):
    return tuple([variable.value for variable in group] for group in groups)

programs = {}
for name, net in {"forward": model, "fused": fuse(model)}.items():
    state = state_of(net.trainable_variables, net.non_trainable_variables)
    forward = jax.jit(lambda state, x, net=net: net.stateless_call(*state, x, training=False)[0])
    programs[name] = forward.lower(state, batch[0]).as_text()
metrics = model.metrics_variables
state = state_of(model.trainable_variables, model.non_trainable_variables, model.optimizer.variables, metrics)
programs["training"] = jax.jit(model.train_step, donate_argnums=0).lower(state, batch).as_text()
found["kept"] = sum(map(len, state)) - len(re.findall("tf.aliasing_output|jax.buffer_donor", programs["training"]))
for name, program in programs.items():
    transposed = re.findall(r"stablehlo[.]transpose .*-> tensor<(.*)>", program)
    found[name] = [program.count("stablehlo.convolution"), transposed, re.findall("custom_call @.*", program)]
print(json.dumps(found))
"""


KNOWN_SKIPS = {
    "JAX computes in float64 only where jax_enable_x64 is set for the whole process",
    "JAX has no float64 by default, and Keras's normalization on PyTorch computes in float32",
    "TensorFlow compiles its own way",
    "TensorFlow's operations",
    "TensorFlow's variables have names",
    "graphs of images are TensorFlow's",
    "only TensorFlow has strategies",
    "tensors of unknown shapes are TensorFlow's",
    "the fused kernel is TensorFlow's",
}
"""Why a test is left out on the other backends."""


def without_tensorflow(backend, script):
    return script if backend == "tensorflow" else WITHOUT_TENSORFLOW + script


def collected(*arguments):
    """How many tests of each module pytest finds on this run's own backend."""
    lines = run(keras.backend.backend(), *PYTEST, "--collect-only", *arguments).splitlines()
    return Counter(line.partition("::")[0] for line in lines if "::" in line)


def check_run(expected, results):
    """That all tests of a run were run, and passed or were skipped as known, by its file in JUnit's format.

    Args:
        expected: how many tests of each module there are.
        results: the file.

    Returns:
        How many passed.
    """
    cases = list(ElementTree.parse(results).iter("testcase"))
    found = Counter(case.get("classname").replace(".", "/") + ".py" for case in cases)
    assert found == expected, "other tests were run than there are"
    outcomes = [(case, [part for part in case if part.tag in ("failure", "error", "skipped")]) for case in cases]
    skips = Counter(part.get("message") for _, parts in outcomes for part in parts if part.tag == "skipped")
    assert not skips.keys() - KNOWN_SKIPS, "tests were skipped for other reasons than those that are known"
    failed = [case.get("name") for case, parts in outcomes if any(part.tag != "skipped" for part in parts)]
    assert not failed
    passed = sum(not parts for _, parts in outcomes)
    assert passed + skips.total() == expected.total()
    assert passed > expected.total() / 2, f"most tests were skipped: {skips}"
    return passed


def passes(backend, folder, *arguments):
    """Runs tests on a backend and checks that they all were run and passed there, but for those known not to."""
    results = folder / "results.xml"
    run(backend, *PYTEST, f"--junitxml={results}", *arguments)
    expected = collected(*arguments)
    print(f"{backend}: {check_run(expected, results)} of {expected.total()} tests passed, the others are known skips")


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
        timeout=850,  # under the 900 s of the slow tests, so that its output is shown
        check=False,
    )
    assert done.returncode == 0, f"{backend}: {done.stdout[-6000:]}\n{done.stderr[-3000:]}"
    return done.stdout


@pytest.mark.slow
@on_others
@pytest.mark.parametrize(
    "tests",
    [
        ("tests/layers", "tests/training/test_optimizers.py", "tests/data/test_protocol.py"),
        ("tests/models", "tests/engine/test_network.py", "tests/engine/test_signatures.py"),
        ("tests/test_applications.py", "tests/data/test_crops.py", "tests/evaluation/test_pooling.py"),
        ("tests/training/test_insertion.py",),
        ("tests/deployment/test_fusing.py",),
        ("tests/evaluation/test_explaining.py", "tests/evaluation/test_extracting.py"),
    ],
    ids=["layers", "models", "applications", "growth", "fusing", "explaining"],
)
def test_what_needs_no_tensorflow_passes(backend, tests, tmp_path):
    passes(backend, tmp_path, "-m", "not slow", *tests)


@pytest.mark.slow
@pytest.mark.parametrize(
    "tests",
    [
        ("tests/checkpoints/test_callback.py", "-m", "not slow"),
        ("tests/checkpoints/test_callback.py", "-m", "slow"),
        ("tests/training/runs/test_unfreezing.py", "-k", "not same_bits"),
        ("tests/training/runs/test_best_epoch.py", "tests/training/runs/test_divergence.py"),
        ("tests/training/test_distillation.py", "tests/training/runs/test_taught_runs.py", "-k", ALONE),
        ("tests/training/runs/test_cached_features.py", "-k", "goes_on_in_the_middle or one_copy"),
    ],
    ids=["checkpoints", "slow checkpoints", "unfreezing", "best epoch", "teachers", "cached features"],
)
def test_trainings_on_jax(tests, tmp_path):
    passes("jax", tmp_path, *tests)


@pytest.mark.slow
@on_others
def test_published_numbers(backend, tmp_path):
    passes(backend, tmp_path, "tests/pretrained/test_golden.py")


KNOWN = "TensorFlow's operations"
PASSES = "def test_a():\n    pass\ndef test_b():\n    pass\n"


CASES = {
    "a_known_skip": (f"{PASSES}@pytest.mark.skip({KNOWN!r})\ndef test_c():\n    pass", 3, None),
    "too_few": (PASSES, 3, "other tests were run than there are"),
    "too_many": (PASSES, 1, "other tests were run than there are"),
    "another_skip": (f"{PASSES}def test_c():\n    pytest.skip('not today')", 3, "other reasons"),
    "expected_failure": (f"{PASSES}@pytest.mark.xfail\ndef test_c():\n    assert False", 3, "other reasons"),
    "failure": (f"{PASSES}def test_c():\n    assert False", 3, r"not \['test_c'\]"),
    "error": (f"{PASSES}def test_c(no_fixture):\n    pass", 3, r"not \['test_c'\]"),
    "no_module": (f"pytest.skip({KNOWN!r}, allow_module_level=True)", 2, "other tests were run than there are"),
    "only_skips": (f"pytestmark = pytest.mark.skip({KNOWN!r})\n{PASSES}", 2, "most tests were skipped"),
}
"""Of a module that is run: its text, how many tests are expected of it, and what is wrong."""


def test_what_counts_as_passed(pytester):
    pytester.makepyfile(**{f"test_{name}": f"import pytest\n{text}" for name, (text, _, _) in CASES.items()})
    pytester.runpytest_inprocess("--junitxml=all.xml", "-p", "no:cacheprovider")
    cases = list(ElementTree.parse(pytester.path / "all.xml").iter("testcase"))
    for name, (_, count, message) in CASES.items():
        suite = ElementTree.Element("testsuite")
        suite.extend(case for case in cases if f"test_{name}" in (case.get("classname"), case.get("name")))
        ElementTree.ElementTree(suite).write(pytester.path / "one.xml")
        expected = Counter({f"test_{name}.py": count})
        if message is None:
            assert check_run(expected, pytester.path / "one.xml") == 2
        else:
            with pytest.raises(AssertionError, match=message):
                check_run(expected, pytester.path / "one.xml")


@pytest.mark.slow
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


@pytest.mark.slow
def test_a_step_on_jax_has_what_a_gpu_needs():
    """No transposed images, nothing that the host computes or sends, one program, and no second copy of the state."""
    found = json.loads(run("jax", "-c", without_tensorflow("jax", STEP_ON_JAX)).splitlines()[-1])
    assert found["compiled"] == 1
    assert found["kept"] == 0
    for name in ("forward", "fused", "training"):
        convolutions, transposed, calls = found[name]
        assert convolutions > 30
        # The gradient of the classifier's kernel.
        assert transposed == (["200x4xf32"] if name == "training" else [])
        assert not calls
