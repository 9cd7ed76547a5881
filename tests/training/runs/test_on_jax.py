"""Runs with JAX as Keras's backend, in processes of their own, compared with TensorFlow's and with one another."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

from polynet_keras.basics.exits import EXIT_RESTART
from polynet_keras.checkpoints.files import CheckpointFiles
from polynet_keras.cluster.communication import Communication
from polynet_keras.training.recipes.optimizer import OptimizerSettings
from polynet_keras.training.recipes.recipe import Recipe
from polynet_keras.training.runs.checking import check_backend
from polynet_keras.training.runs.execution import Execution
from tests.training.runs.test_train import bright_and_dark, history

ROOT = Path(__file__).parents[3]


def run(backend, what, folder):
    environment = {**os.environ, "KERAS_BACKEND": backend, "TF_CPP_MIN_LOG_LEVEL": "2", "PYTHONPATH": str(ROOT)}
    environment["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "1"  # compiles for half the time
    return subprocess.run(
        [sys.executable, Path(__file__).with_name("on_jax.py"), what, str(folder)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=850,
        check=False,
    )


def found(done):
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.slow
@pytest.mark.backends
def test_one_seed_gives_the_weights_and_the_first_losses_of_tensorflow(digits_run, tmp_path):
    (tmp_path / "trained").symlink_to(digits_run.folder)
    losses, further = {}, {}
    for backend in ("tensorflow", "jax"):
        outcome = found(run(backend, "first", tmp_path))
        assert outcome["backend"] == backend
        losses[backend], further[backend] = outcome["losses"], outcome["further"]
    tensorflow, jax = (np.load(tmp_path / f"{backend}.npz") for backend in ("tensorflow", "jax"))
    assert tensorflow.files == jax.files
    for name in tensorflow.files:
        np.testing.assert_array_equal(jax[name], tensorflow[name])
    # The statistics of a batch in this small, random network multiply a rounding error in each later step.
    assert len(losses["jax"]) == 2
    np.testing.assert_allclose(losses["jax"], losses["tensorflow"], rtol=0, atol=1e-4)
    # A trained network with frozen normalizations does not.
    assert len(further["jax"]) == 10
    assert np.ptp(further["jax"]) > 0.1
    np.testing.assert_allclose(further["jax"], further["tensorflow"], rtol=0, atol=1e-4)


@pytest.mark.slow
@pytest.mark.backends
def test_a_run_that_is_killed_and_stopped_goes_on_bit_for_bit(tmp_path):
    """With accumulated gradients, averages, rematerialization, bfloat16, stochastic depth and a best epoch."""
    bright_and_dark(tmp_path / "data", 15)
    killed = run("jax", "run", tmp_path)
    assert killed.returncode == -signal.SIGKILL, killed.stderr[-3000:]
    assert CheckpointFiles(tmp_path / "run" / "checkpoints", 3).newest().facts["progress"]["position"] == {
        "epoch": 1, "step": 2, "global_step": 6,
    }  # fmt: skip
    shutil.copytree(tmp_path / "run", tmp_path / "tensorflow")
    files = CheckpointFiles(tmp_path / "tensorflow" / "checkpoints", 3)
    saved = files.newest()
    files.write({**saved.facts, "backend": "tensorflow"}, {})

    stopped = run("jax", "stop", tmp_path)
    assert stopped.returncode == EXIT_RESTART, stopped.stderr[-3000:]
    outcome = found(run("jax", "end", tmp_path))
    assert outcome["card"] == json.loads((tmp_path / "whole.json").read_text())
    assert len(outcome["same"]) > 30  # with the optimizer's accumulated gradients and averages
    assert all(outcome["same"])
    assert history(tmp_path / "run") == history(tmp_path / "whole")
    assert {row["best_epoch"] for row in history(tmp_path / "run")} <= {"0", "1", "2"}
    assert "holds a finished run of this recipe" in outcome["again"]
    assert "was written on Keras's tensorflow backend, and this is jax" in outcome["begun on TensorFlow"]
    assert outcome["dry run"] == [3, 4]
    assert outcome["range"] > 10
    model = keras.saving.load_model(tmp_path / "run" / "model.keras")  # on TensorFlow
    assert np.isfinite(model.predict(np.ones((2, 75, 75, 3)), verbose=0)).all()


@pytest.mark.parametrize(
    ("backend", "settings", "execution", "message"),
    [
        ("torch", {}, {}, "Keras's backend is torch, and runs train on tensorflow and jax: set KERAS_"),
        ("jax", {}, {"strategy": "mirrored"}, "jax a run cannot have strategy='mirrored': leave it out, or set"),
        ("jax", {}, {"gradient_dtype": "float16"}, "cannot have gradient_dtype='float16'"),
        ("jax", {}, {"communication": Communication(implementation="ring")}, "cannot have implementation='ring'"),
        ("jax", {}, {"communication": Communication(timeout_seconds=60)}, "cannot have timeout_seconds=60"),
        ("jax", {}, {"communication": Communication(bytes_per_pack=0)}, "cannot have bytes_per_pack=0"),
        ("jax", {"loss": "binary"}, {}, "cannot have loss='binary'"),
    ],
)
def test_what_only_tensorflow_can_is_refused(backend, settings, execution, message):
    with pytest.raises(ValueError, match=message):
        check_backend(backend, Recipe(**settings), Execution(**execution))


def test_what_every_backend_can_is_not_refused():
    check_backend("jax", Recipe(optimizer=OptimizerSettings(ema_momentum=0.9)), Execution("none"))
    check_backend("tensorflow", Recipe(loss="binary"), Execution("mirrored", gradient_dtype="float16"))
