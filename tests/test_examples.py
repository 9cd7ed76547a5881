"""Each example runs as it stands and prints what its header says."""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from polynet_keras.data.examples import Source
from polynet_keras.data.fashion_mnist import FOLDER as FASHION_MNIST_FOLDER
from polynet_keras.evaluation.predicting import predict
from polynet_keras.studies.ablation_outcomes import Outcome
from polynet_keras.training.recipes.recipe import Recipe

EXAMPLES = Path(__file__).parent.parent / "examples"


pytestmark = pytest.mark.slow


def run(example, folder):
    environment = {**os.environ, "KERAS_BACKEND": "tensorflow"}
    command = [sys.executable, EXAMPLES / example]
    done = subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout.splitlines()


def test_stochastic_depth(tmp_path):
    lines = run("stochastic_depth.py", tmp_path)
    assert [line.split(",")[0] for line in lines] == [
        "epoch 1: paths inactive",
        "epoch 2: paths inactive",
        "epoch 3: paths active",
        "epoch 4: paths active",
    ]
    assert len({re.search(r"traced (\d+) time", line)[1] for line in lines}) == 1


def load(example, recipe):
    """An example as a module, with a recipe that ends soon."""
    spec = importlib.util.spec_from_file_location(example, EXAMPLES / f"{example}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.RECIPE = recipe
    return module


def test_growth(tmp_path, capsys):
    structure = "1 x [2-way] | 2 x [ir] | 1 x [ir]"
    module = load("growth", Recipe(structure=structure, width=0.0625, batch_size=256, epochs=1))
    module.LARGE = structure
    module.main(tmp_path, seeds=2)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "stage_a_01  2-way  from stage_a_01 (ir), new: G"
    assert [line.split(" |")[0] for line in lines[-4:-2]] == ["| 0", "| 1"]
    assert lines[-1].startswith("error, grown minus from scratch: ")
    started = {path.parent.name: path.stat().st_mtime for path in tmp_path.rglob("model.json")}
    module.main(tmp_path, seeds=2)
    assert {path.parent.name: path.stat().st_mtime for path in tmp_path.rglob("model.json")} == started


def test_ablation(tmp_path, capsys, monkeypatch):
    """The runs themselves are those of tests/studies/test_ablation_runs.py."""
    module = load("ablation", Recipe())
    outcomes = [
        Outcome(name, stage, baseline, baseline, "1 x [ir] | 1 x [ir] | 1 x [ir]", seed, 10, 9, 1.0, 1000, wrong, 0.003)
        for name, stage, baseline, errors in (("ir 1-1-1", "", "", (100, 101)), ("A 2-way", "A", "ir 1-1-1", (70, 72)))
        for seed, wrong in enumerate(errors)
    ]
    monkeypatch.setattr(module, "ablation", lambda *_: outcomes)
    module.main(tmp_path)
    assert "Does PolyNet beat Inception-ResNet at the same compute here? Yes." in (output := capsys.readouterr().out)
    assert "| A 2-way | ir 1-1-1 | 2 | -2.95 |" in output
    assert output.strip() == (tmp_path / "ablation.md").read_text().strip()
    assert {path.name for path in tmp_path.iterdir()} == {"ablation.md", "ablation.png"}


def test_finetune(tmp_path):
    *_, first, second, third, hint = run("finetune.py", tmp_path)
    accuracies = [float(re.search(r"held-out accuracy (\d+\.\d+)%", line)[1]) for line in (first, second, third)]
    # Measured: 89, 94, 94 %. A head that learns nothing has 10 %.
    assert accuracies[0] > 75
    assert accuracies[-1] > 88
    folder = tmp_path / re.search(r"--model=(\S+)", hint)[1]
    Image.fromarray(np.zeros((8, 8), "uint8")).save(tmp_path / "digit.png")
    (prediction,) = predict(folder, [tmp_path / "digit.png"], top=10)
    assert {name for name, _ in prediction.classes} == set("0123456789")


def test_segmentation(tmp_path):
    *levels, last = run("segmentation.py", tmp_path)
    assert [line.split()[0] for line in levels] == ["P5", "P4", "P3", "P2"]
    learned, nothing = map(float, re.fullmatch(r"mean IoU .*: (\d\.\d\d); of .*: (\d\.\d\d)", last).groups())
    # Measured: 0.76 and 0.20. A head that learns nothing has what "all is background" has.
    assert learned > 0.5 > 2 * nothing


@pytest.mark.skipif(not FASHION_MNIST_FOLDER.is_dir(), reason="Debian's package dataset-fashion-mnist is not installed")
def test_neighbours(tmp_path):
    found = [re.findall(r"(\d+) (?:%|of 50|other)", line) for line in run("neighbours.py", tmp_path)]
    # Measured: 77 %, 27, 8333; 90 %, 35, 8560; 82 %, 45, 326.
    (pixels, of_pixels, _), (stage_c, _, many), (_, of_stem, few) = ([int(n) for n in line] for line in found)
    assert stage_c > pixels + 8
    assert of_stem > of_pixels + 10
    assert few < many


@pytest.mark.skipif(importlib.util.find_spec("jax") is None, reason="JAX is not installed")
def test_jax_data_parallel(tmp_path):
    first, epochs = run("jax_data_parallel.py", tmp_path)
    numbers = r"devices 1, 2: first losses (\S+), (\S+); weights moved by up to (\S+) and differ by (\S+)"
    one, two, moved, apart = map(float, re.fullmatch(numbers, first).groups())
    # Measured: 0.00001 of 0.4. Statistics of half the batch would change the loss in its first digits.
    assert abs(one - two) < 1e-4
    assert moved > 0.1
    assert apart < 0.01 * moved
    losses = [float(loss) for loss in epochs.removeprefix("losses of the epochs on both: ").split(", ")]
    # Measured: 3.08, 1.20, 0.28.
    assert len(losses) == 3
    assert losses[-1] < losses[0] / 2


@pytest.mark.skipif(not FASHION_MNIST_FOLDER.is_dir(), reason="Debian's package dataset-fashion-mnist is not installed")
def test_evaluate_fashion_mnist(tmp_path):
    (line,) = run("evaluate_fashion_mnist.py", tmp_path)
    right = int(re.fullmatch(r"fashion_mnist: (\d+) of 10000 right, error \d\.\d\d %", line)[1])
    # Measured: 9286. Another machine's sums may turn a few close calls.
    assert abs(right - 9286) <= 5


@pytest.mark.skipif(not FASHION_MNIST_FOLDER.is_dir(), reason="Debian's package dataset-fashion-mnist is not installed")
def test_ensemble_fashion_mnist(monkeypatch, capsys):
    """On so few images that it takes a minute, in place of seven: the way, not the numbers."""
    spec = importlib.util.spec_from_file_location("ensemble_fashion_mnist", EXAMPLES / "ensemble_fashion_mnist.py")
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    source = example.open_source("fashion_mnist", seed=0)
    few = Source(source.training, source.held_out.subset(np.arange(300), "test"))
    monkeypatch.setattr(example, "open_source", lambda data, seed: few)
    monkeypatch.setattr(example, "TRAINING", 320)
    monkeypatch.setattr(example, "FITTING", 200)
    example.main()
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[1:6]] == ["polynet,", "inception_resnet,", "resnet,", "mixture", "gain"]
    weights = [float(re.search(r"weight (\d\.\d\d)", line)[1]) for line in lines[7:10]]
    assert sum(weights) == pytest.approx(1, abs=0.02)
    assert all(" of 300 right, loss " in line for line in (*lines[1:5], *lines[7:11]))
