"""The kit for a GPU works without one: its plan, budget, search and table, and all of it on a small network."""

import argparse
import importlib
import json
import math
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
BENCHMARKS = ROOT / "benchmarks"


@pytest.fixture(scope="module")
def gpu():
    sys.path.insert(0, str(BENCHMARKS))
    yield importlib.import_module("gpu")
    sys.path.remove(str(BENCHMARKS))


@pytest.mark.parametrize(
    ("room", "start", "found", "tried"),
    [
        (100, 8, 64, [8, 16, 32, 64, 128]),
        (64, 64, 64, [64, 128]),
        (5, 32, 4, [32, 16, 8, 4]),
        (0, 4, None, [4, 2, 1]),
        (10**6, 128, 256, [128, 256]),  # the limit
        (1, 1, 1, [1, 2]),
    ],
)
def test_the_largest_batch(gpu, room, start, found, tried):
    asked = []

    def fits(batch):
        asked.append(batch)
        return batch <= room

    assert gpu.largest_batch(fits, start, 256) == found
    assert asked == tried


@pytest.mark.parametrize(
    ("answers", "found"), [({8: None}, None), ({8: False, 4: None}, None), ({8: True, 16: True, 32: None}, 16)]
)
def test_the_largest_batch_known_so_far(gpu, answers, found):
    assert gpu.largest_batch(answers.__getitem__, 8, 256) == found


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


def test_a_budget_leaves_out_what_took_longer_than_what_is_left(gpu):
    clock = Clock()
    budget = gpu.Budget(600, clock)
    assert (budget.left(), budget.limit()) == (600, 600 - gpu.ROUNDS_SECONDS)
    assert gpu.Budget(10**4, clock).limit() == gpu.LIMIT_SECONDS
    budget.took("training", "slow", 200.0)
    budget.took("training", "fast", 10.0)
    clock.now = 600 - gpu.ROUNDS_SECONDS - gpu.GUESS_SECONDS - 1
    assert [budget.allows("training", text) for text in ("slow", "fast", "unknown")] == [False, True, True]
    assert budget.allows("inference", "slow")  # another task
    clock.now += 2
    assert [budget.allows("training", text) for text in ("slow", "fast", "unknown")] == [False, True, False]
    clock.now = 700
    assert budget.limit() < 0


def sides_of(gpu):
    return lambda cell: list(gpu.TASKS[cell.task])


def test_cells_come_in_the_order_that_the_help_tells(gpu):
    cells = [cell for cell, _ in gpu.pending(gpu.plan(False), [], sides_of(gpu))]
    told = [(cell.task, cell.dtype, cell.image_size, cell.batches) for cell in cells[:4]]
    assert told == [
        ("training", "bfloat16", 331, (32,)),
        ("inference", "bfloat16", 331, (1, 8, 64, 256)),
        ("training", "bfloat16", 235, (64,)),
        ("training", "float32", 331, (32,)),
    ]
    assert [bool(cell.batches) for cell in cells] == [True] * 4 + [False, True, True] + [False] * 3
    assert len(set(cells)) == len(cells)


def test_what_is_resumed_has_the_first_side_again(gpu):
    first, second, *_ = cells = gpu.plan(False)
    measured = {text: {"status": "measured", "batches": {}} for text in gpu.TRAINING[:2]}
    failed = {gpu.TRAINING[2]: {"status": "failed", "batches": {}}}
    cut_off = {text: {"status": gpu.OPEN, "batches": {}} for text in gpu.TRAINING[3:]}
    records = [{"cell": json.loads(json.dumps(gpu.as_json(first))), "sides": {**measured, **failed, **cut_off}}]
    left = dict(gpu.pending(cells, records, sides_of(gpu)))
    assert left[first] == [gpu.TRAINING[0], *gpu.TRAINING[3:]]
    assert left[second] == list(gpu.INFERENCE)
    (kept,) = gpu.without_open([*records, {"cell": {}, "sides": cut_off}])
    assert kept["sides"] == {**measured, **failed}
    again = {text: {"status": "measured", "batches": {}} for text in left[first]}
    assert first not in dict(
        gpu.pending(cells, [*records, {"cell": records[0]["cell"], "sides": again}], sides_of(gpu))
    )


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (RuntimeError("RESOURCE_EXHAUSTED: Out of memory while trying to allocate 12 bytes."), "out of memory"),
        (RuntimeError("CUDA out of memory. Tried to allocate 2 GiB."), "out of memory"),
        (ValueError("first line\nsecond line"), "ValueError: first line"),
        (AssertionError(), "AssertionError:"),
    ],
)
def test_failures_are_one_line(gpu, error, text):
    assert importlib.import_module("gpu_sides").failure(error) == text


class FakeSide:
    """A side without a process: a step takes as many seconds as a batch has images; `room` images fit."""

    clock: Clock
    log: list

    def __init__(self, text, cell, alone=False):
        self.text, self.cell, self.alone, self.compiled = text, cell, alone, set()
        self.room = {"pytorchcv": 8}.get(text, 64)
        FakeSide.log.append(f"start {text}")

    def wait(self, seconds):
        if self.text == "keras":
            return {"failed": "ImportError: no"}
        FakeSide.clock.now += 10
        return {"device": "gpu", "device_name": "Fake", "import_s": 4.0, "build_s": 6.0}

    def run(self, batch, count, seconds):
        FakeSide.log.append(f"{self.text} {batch}")
        if self.text == "machine":
            return {"rates": {"matmul_tflops": 100.0, "copy_gbs": 1000.0}, "seconds": 1.0, "peak_gib": 0.0}
        if batch > self.room:
            return {"failed": "out of memory"}
        took = float(batch * count) if batch in self.compiled else 50.0
        if took > seconds:
            FakeSide.clock.now += max(seconds, 0)
            return {"failed": "no time left"}
        self.compiled.add(batch)
        FakeSide.clock.now += took
        return {"seconds": float(batch), "peak_gib": batch / 8, "loss": 7.0}

    def stop(self):
        FakeSide.log.append(f"stop {self.text}")


@pytest.fixture
def run_of(gpu, monkeypatch, tmp_path):
    """Makes a run of a clock of its own, whose sides are fake."""
    FakeSide.clock, FakeSide.log = Clock(), []
    monkeypatch.setattr(gpu, "Side", FakeSide)
    monkeypatch.setattr(gpu, "missing_packages", lambda text: ["tensorflow"] if "tensorflow" in text else [])
    monkeypatch.setattr(gpu, "gpu_state", lambda *query: None)

    def make(seconds):
        results = {"name": "fake", "started": "now", "small": False, "rounds": 2, "commands": ["python gpu.py"]}
        results |= {"machine": {**gpu.machine(), "memory_gib": 10.0}, "records": []}
        run = gpu.Run(tmp_path / "gpu-fake.json", results, argparse.Namespace(minutes=1, rounds=2, small=False))
        run.budget = gpu.Budget(seconds, FakeSide.clock)
        return run

    return make


SIDES = ["polynet_keras,backend=jax", "pytorchcv", "keras", "fused,backend=tensorflow"]


def test_sides_take_turns_and_what_does_not_fit_is_a_result(gpu, run_of):
    run = run_of(10**4)
    cell = gpu.Cell("training", gpu.G5, 331, "bfloat16", (8, 16), steps=1)
    run.measure(cell, SIDES)
    ours, theirs = SIDES[:2]
    assert FakeSide.log == [
        *(f"start {text}" for text in SIDES[:3]),
        "stop keras",
        "start machine",
        *[f"{ours} 8"] * 2,
        *[f"{theirs} 8"] * 2,
        *("machine 1", f"{theirs} 8", f"{ours} 8"),
        *(f"{ours} 8", f"{theirs} 8", "machine 1"),
        *[f"{ours} 16"] * 2,
        *(f"{theirs} 16", f"stop {theirs}"),
        *("machine 1", f"{ours} 16"),
        *(f"{ours} 16", "machine 1"),
        *(f"stop {ours}", "stop machine"),
    ]
    (record,) = json.loads(run.path.read_text())["records"]
    assert {text: side["status"] for text, side in record["sides"].items()} == {
        **dict.fromkeys(SIDES[:2], "measured"),
        **dict.fromkeys(SIDES[2:], "failed"),
    }
    assert record["sides"][ours]["batches"]["16"]["seconds"] == [16.0, 16.0]
    assert record["sides"][theirs]["batches"]["16"] == {"why": "out of memory"}
    text = run.path.with_suffix(".md").read_text()
    assert text.splitlines()[2].startswith("Fake; ")
    (row,) = [line for line in text.splitlines() if line.startswith(f"| 8 | {ours} |")]
    assert "| 8000.0 (8000.0-8000.0) | 1.0 | 1.00 (1.00-1.00) |" in row
    assert "| 18.0 | 1.00 | 0.0e+00 |" in row  # import, build and first step; peak; difference of the losses
    for line in (
        "* pytorchcv, 16 images: out of memory",
        "* keras: ImportError: no",
        "* fused,backend=tensorflow: tensorflow not installed",
        "The device meanwhile: matrix product 100 TFLOP/s, copy 1000 GB/s.",
    ):
        assert line in text.splitlines()


def test_a_run_that_is_cut_off_leaves_what_it_had(gpu, run_of):
    run = run_of(gpu.ROUNDS_SECONDS + gpu.GUESS_SECONDS + 60)
    cell = gpu.Cell("training", gpu.G5, 331, "bfloat16", (8,), steps=1)
    run.measure(cell, SIDES[:2])
    (record,) = json.loads(run.path.read_text())["records"]
    ours, theirs = (record["sides"][text] for text in SIDES[:2])
    assert (ours["status"], theirs["status"]) == ("measured", gpu.OPEN)
    assert ours["batches"]["8"]["seconds"]
    assert "* pytorchcv: no time left" in run.path.with_suffix(".md").read_text()
    assert dict(gpu.pending([cell], [record], lambda cell: SIDES[:2])) == {cell: SIDES[:2]}


def test_the_largest_batches(gpu, run_of):
    run = run_of(10**4)
    cell = gpu.Cell("training", gpu.G5, 331, "bfloat16", (8,), steps=1)
    run.measure(cell, SIDES[:2])
    FakeSide.log.clear()
    run.measure(gpu.Cell("training", gpu.G5, 331, "bfloat16", steps=1), SIDES[:2])
    _, record = json.loads(run.path.read_text())["records"]
    # 8 images took 1 GiB of 10: the search begins at 64.
    assert [line for line in FakeSide.log if line.startswith(("start", "stop"))] == [
        *[f"start {SIDES[0]}", f"stop {SIDES[0]}"] * 2,
        *["start pytorchcv", "stop pytorchcv"] * 4,
    ]
    assert [record["sides"][text]["largest"] for text in SIDES[:2]] == [64, 8]
    assert record["sides"]["pytorchcv"]["batches"].keys() == {"64", "32", "16", "8"}
    assert {side["status"] for side in record["sides"].values()} == {"measured"}


def test_weights_depend_on_the_name_alone(gpu):
    draw = importlib.import_module("gpu_sides").values_of
    kernel, bias = draw("predictions", [(64, 10), (10,)])
    assert (kernel.shape, bias.shape) == ((64, 10), (10,))
    assert (draw("predictions", [(64, 10)])[0] == kernel).all()
    assert (draw("another", [(64, 10)])[0] != kernel).any()
    assert kernel.std() == pytest.approx(math.sqrt(2 / 64), rel=0.1)
    assert [value.shape for value in draw("bn", [(8,)] * 4)] == [(8,)] * 4


def kit(folder, *arguments, file=BENCHMARKS / "gpu.py"):
    done = subprocess.run(
        [sys.executable, str(file), *arguments],
        cwd=folder,
        # JAX compiles in half of the time; threads of PyTorch that wait for each other do not spin on a busy machine.
        env={**os.environ, "PYTHONPATH": str(ROOT), "JAX_DISABLE_MOST_OPTIMIZATIONS": "1", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr[-3000:]}"
    return done


@pytest.mark.slow
def test_all_of_it_on_a_small_network(gpu, tmp_path):
    sides = ("pytorchcv", "fused,backend=tensorflow")
    kit(tmp_path, "--small", "--name", "here", "--sides", *sides)
    results = json.loads((tmp_path / "gpu-here.json").read_text())
    training, inference, largest = results["records"]
    for record in results["records"]:
        assert record["sides"].keys() == {text for text in gpu.TASKS[record["cell"]["task"]] if text in sides}
        for text, side in record["sides"].items():
            assert side["status"] == "measured", f"{text}: {side}"
            for facts in side["batches"].values():
                assert len(facts["seconds"]) == 1
                assert min(facts["seconds"]) > 0
                assert facts["peak_gib"] > 0
        for rate in record.get("rates", []):
            assert min(rate.values()) > 0
    assert {side["largest"] for side in largest["sides"].values()} == {2}
    assert training["sides"]["pytorchcv"]["batches"]["4"]["first_loss"] > 0
    for side in inference["sides"].values():
        assert side["batches"].keys() == {"1", "2"}
        assert all(facts["difference"] < 0.1 for facts in side["batches"].values())  # of bfloat16
    text = (tmp_path / "gpu-here.md").read_text()
    assert all(f"| 2 | {side} |" in text for side in sides)
    assert "no GPU" in text
    again = kit(tmp_path, "--small", "--name", "here", "--resume", "--sides", *sides)
    assert "starts" not in again.stderr  # everything is there


@pytest.fixture
def answers_of(gpu, monkeypatch):
    """Returns a function that starts sides at the same time, and gives the answers to their requests."""
    monkeypatch.setenv("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    sides = []

    def ask(cell_of, texts, requests):
        sides.extend(gpu.Side(text, cell_of[dtype]) for text, dtype in texts)
        for side in sides:
            assert "failed" not in side.wait(600)
            side.ask(requests[0])
        answers = [[side.wait(600)] for side in sides]
        for request in requests[1:]:
            for side, found in zip(sides, answers, strict=True):
                found.append(side.run(*request, 600))
        for side, found in zip(sides, answers, strict=True):
            assert all(answer.get("seconds", 0) > 0 for answer in found), f"{side.text}: {found}"
        return answers

    yield ask
    for side in sides:
        side.stop()


@pytest.mark.slow
def test_sides_train_alike(gpu, answers_of):
    """The first step, and two blocks of `fit`. Keras's layers are on TensorFlow: JAX compiles for half a minute."""
    cells = {dtype: gpu.Cell("training", gpu.SMALL, 107, dtype, (4,), steps=1) for dtype in ("float32", "bfloat16")}
    jax, tensorflow, keras = "polynet_keras,backend=jax", "polynet_keras,backend=tensorflow", "keras,backend=tensorflow"
    texts = [("pytorchcv", "float32"), (jax, "float32"), (tensorflow, "float32"), (keras, "bfloat16")]
    answers = answers_of(cells, texts, [(4, 1)] * 3)
    first, *others = (found[0]["loss"] for found in answers[:3])
    assert others == pytest.approx([first] * 2, rel=1e-3)
    assert all(math.isfinite(answer["loss"]) for found in answers for answer in found)


@pytest.mark.slow
def test_sides_infer_alike(gpu, answers_of):
    cells = {dtype: gpu.Cell("inference", gpu.SMALL, 75, dtype, (1,)) for dtype in ("float32", "bfloat16")}
    texts = [("pytorchcv", "float32"), ("keras", "float32"), ("fused,backend=jax", "bfloat16")]
    expected, *outputs = (found[0]["output"] for found in answers_of(cells, texts, [(1, 1)]))
    for output, tolerance in zip(outputs, (1e-3, 0.1), strict=True):
        assert np.abs(output - expected).max() < tolerance * np.abs(expected).max()


@pytest.mark.slow
def test_a_file_for_a_machine_without_a_network(tmp_path):
    packed = tmp_path / "gpu.zip"
    kit(tmp_path, "--pack", str(packed))
    assert packed.stat().st_size < 60e6
    names = zipfile.ZipFile(packed).namelist()
    packages = {name.split("/")[1] for name in names if name.startswith(("libraries/", "cp"))}
    assert {"keras", "pytorchcv", "absl", "rich", "optree", "h5py"} <= packages
    assert not {"jax", "jaxlib", "torch", "numpy", "tensorflow", "scipy", "tests"} & packages
    assert "--pack FILE" in kit(tmp_path, "--help", file=packed).stdout
    assert (tmp_path / "gpu" / "polynet_keras" / "applications.py").exists()
