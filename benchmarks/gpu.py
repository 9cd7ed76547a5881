"""G5 on one GPU: ours, plain Keras 3 and PyTorch in one run, beside the device's own rates. One command:

    PYTHONPATH=. python benchmarks/gpu.py --name h200
    PYTHONPATH=. python benchmarks/gpu.py --name h200 --minutes 9             # and, as often as you like, its rest:
    PYTHONPATH=. python benchmarks/gpu.py --name h200 --minutes 9 --resume
    PYTHONPATH=. python benchmarks/gpu.py --small                             # does it run here? Also on a processor

It writes `gpu-NAME.json` after every measurement, and the table `gpu-NAME.md` of the same numbers. It needs no network
and no TensorFlow. For a machine without Keras 3 and pytorchcv, make a file on another one and run that:

    PYTHONPATH=. python benchmarks/gpu.py --pack gpu.zip --python 3.11 3.12
    python gpu.zip --name h200

Every side is a process of its own (`gpu_sides.py`). A cell is a task, an image size and a dtype: the sides of a cell
start one after another, so that nothing disturbs their compilation, and then take turns. All hold the same random
weights and compute the same images, which are on the device before the clock starts. A timed block ends when the device
is done. Cells come in this order:

    training, bfloat16, 331 px, 32 images      `compile` and `fit` of Keras; a plain loop in PyTorch
    inference, bfloat16, 331 px                1, 8, 64 and 256 images, the weights unfused or fused
    both again, with torch.compile             which takes longest to start, beside the first side
    training, bfloat16, 235 px, 64 images
    training, float32 with TF32, 331 px, 32 images
    the largest batch, bfloat16, 331 px        of each side alone, from what a side took before, by doubling
    inference, float32, 331 px
    training, float32, 235 px, 64 images
    the largest batches of the other three trainings

`--minutes` is for all of it. A side neither starts nor compiles if that took it longer before than what is left: first
the sides that come last in a cell are left out, and then the last cells. The table names them, and `--resume` measures
them, beside the cell's first side. A batch that does not fit is a result: "out of memory" (the sides before it hold
memory too). Sides are

    polynet_keras     PolyNet, with backend=jax or backend=tensorflow
    fused             after `deployment.fuse`; for inference
    keras             the network as a plain keras.Model of Keras's layers, on JAX
    pytorchcv         pytorchcv's polynet, channels_last, autocast; with compile=1, torch.compile(mode="max-autotune")

The column `difference` is the largest difference of a logit from pytorchcv's on the processor in float32, relative to
the largest logit; in training it is the difference of the first step's loss from pytorchcv's on the device. The share
of the roof is that of what the measured rates allow: the product's rate, or the copy's at G5's FLOP a byte
(`roofline.py`; with a backward pass the intensity is about the same). GFLOP are twice the multiply-accumulates of the
unfused network, three times as many for a training step.
"""

import argparse
import contextlib
import dataclasses
import datetime
import json
import math
import os
import platform
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from gpu_pack import pack
from gpu_sides import COMPARED, ENDED, G5, NO_MEMORY, OPEN, SMALL, Cell, Side, missing_packages
from inference import spread, table, versions
from roofline import intensity
from training import processor

from polynet_keras.version import __version__

TRAINING = (
    "polynet_keras,backend=jax",
    "pytorchcv",
    "keras",
    "pytorchcv,compile=1",
    "polynet_keras,backend=tensorflow",
)
INFERENCE = (
    "fused,backend=jax",
    "pytorchcv",
    "keras",
    "pytorchcv,compile=1",
    "polynet_keras,backend=jax",
    "fused,backend=tensorflow",
)
"""In the order of their starts. The first one is in every part of a cell that is resumed."""
BASE = "pytorchcv"
"""The side that ratios are to."""
PACKAGES = (
    *("keras", "jax", "jaxlib", "jax-cuda12-plugin", "jax-cuda13-plugin", "torch", "triton"),
    *("tensorflow", "pytorchcv", "numpy", "nvidia-cudnn-cu12", "nvidia-cudnn-cu13", "nvidia-nccl-cu12"),
)
LIMIT_SECONDS = 600
"""What starts or compiles longer has failed."""
GUESS_SECONDS = 60
"""Of a start or a compilation that was not seen yet."""
ROUNDS_SECONDS = 20
"""Kept for rounds while sides start and compile."""
LARGEST = 4096
"""Images, at most."""


TASKS = {"training": TRAINING, "inference": INFERENCE}
REFERENCE = "pytorchcv,device=cpu"
VARIABLES = ("CUDA_", "CUDNN_", "JAX_", "KERAS_", "NCCL_", "NVIDIA_", "PYTORCH_", "TF_GPU", "TF_XLA", "TORCH", "XLA_")
"""How the names of variables begin that the frameworks read."""


def plan(small: bool) -> list[Cell]:
    if small:
        return [
            # The last maps have 2 × 2 values: the statistics of fewer would make chaos of rounding.
            Cell("training", SMALL, 107, "float32", (4,), steps=1),
            Cell("inference", SMALL, 75, "bfloat16", (1, 2)),
            Cell("training", SMALL, 75, "bfloat16", steps=1),
        ]
    size = {235: (64,), 331: (32,)}
    train = {(px, dtype): Cell("training", G5, px, dtype, size[px]) for px in size for dtype in ("bfloat16", "float32")}
    largest = {key: dataclasses.replace(cell, batches=()) for key, cell in train.items()}
    infer = {dtype: Cell("inference", G5, 331, dtype, (1, 8, 64, 256)) for dtype in ("bfloat16", "float32")}
    return [
        train[331, "bfloat16"],
        infer["bfloat16"],
        train[235, "bfloat16"],
        train[331, "float32"],
        largest[331, "bfloat16"],
        infer["float32"],
        train[235, "float32"],
        largest[235, "bfloat16"],
        largest[331, "float32"],
        largest[235, "float32"],
    ]


class Budget:
    """The seconds of this run, and how long parts of it took."""

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic):
        self._clock, self._end = clock, clock() + seconds
        self._took: dict[tuple[str, str], float] = {}

    def left(self) -> float:
        return self._end - self._clock()

    def limit(self) -> float:
        """Returns the seconds that a start or a compilation may take now."""
        return min(LIMIT_SECONDS, self.left() - ROUNDS_SECONDS)

    def took(self, part: str, text: str, seconds: float) -> None:
        self._took[part, text] = seconds

    def allows(self, part: str, text: str) -> bool:
        return self.left() - ROUNDS_SECONDS > self._took.get((part, text), GUESS_SECONDS)


def pending(cells: list[Cell], records: list[dict], sides: Callable[[Cell], list[str]]) -> Iterator[tuple]:
    """Yields each cell that records do not settle, and the sides to measure: the cell's first one is among them."""
    for cell in cells:
        found = [record["sides"] for record in records if record["cell"] == as_json(cell)]
        settled = {text for one in found for text, side in one.items() if side["status"] != OPEN}
        texts = [text for text in sides(cell) if text not in settled]
        if texts:
            first = sides(cell)[0]
            again = [first] if any(one.get(first, {}).get("status") == "measured" for one in found) else []
            yield cell, [*again, *texts]


def without_open(records: list[dict]) -> list[dict]:
    """Returns records without the sides that nothing was measured of: they are measured now."""
    kept = []
    for record in records:
        sides = {text: side for text, side in record["sides"].items() if side["status"] != OPEN or side["batches"]}
        if sides:
            kept.append({**record, "sides": sides})
    return kept


def largest_batch(fits: Callable[[int], bool | None], start: int, limit: int) -> int | None:
    """Returns the largest of `start` × 2^k that fits, at most `limit`; None if nothing does.

    Args:
        fits: whether a batch fits; None if that cannot be found out: what is known then is the answer.
    """
    batch, answer = start, fits(start)
    while answer is False and batch > 1:
        batch //= 2
        answer = fits(batch)
        if answer:
            return batch
    if not answer:
        return None
    while 2 * batch <= limit and fits(2 * batch):
        batch *= 2
    return batch


def as_json(cell: Cell) -> dict:
    return {**dataclasses.asdict(cell), "batches": list(cell.batches)}


def passes(seconds: float) -> int:
    """Returns how many passes of inference a block has: about half a second's."""
    return min(max(round(0.5 / seconds), 1), 50)


# Measuring


class Run:
    """One run of this command, and what it has found so far."""

    def __init__(self, path: Path, results: dict, settings: argparse.Namespace):
        self.path, self.results, self.settings = path, results, settings
        self.budget = Budget(60 * settings.minutes)
        self._references: dict[tuple, np.ndarray | None] = {}

    def save(self) -> None:
        partial = self.path.with_suffix(".part")
        partial.write_text(json.dumps(self.results, indent=1) + "\n")
        partial.replace(self.path)
        self.path.with_suffix(".md").write_text(text_of(self.results))

    def measure(self, cell: Cell, texts: list[str]) -> None:
        record: dict = {"cell": as_json(cell), "sides": {text: {"status": OPEN, "batches": {}} for text in texts}}
        self.results["records"].append(record)
        for text, found in record["sides"].items():
            if missing := missing_packages(text):
                found |= {"status": "failed", "why": f"{', '.join(missing)} not installed"}
        (self._take_turns if cell.batches else self._seek_largest)(cell, record)
        record["gpu_after"] = gpu_state()
        self.save()

    def _take_turns(self, cell: Cell, record: dict) -> None:
        record["rates"] = []
        expected = self._expected(cell)
        sides: dict[str, Side] = {}
        try:
            for text in [*record["sides"], "machine"]:
                found = record["sides"].get(text, {})
                if "why" not in found and not missing_packages(text) and (side := self._start(text, cell, found)):
                    sides[text] = side
            for batch in cell.batches:
                for text in [text for text in sides if text != "machine"]:
                    if not self._warm_up(sides[text], cell, batch, record["sides"][text], expected):
                        sides.pop(text).stop()
                    self.save()
                for number in range(self.settings.rounds):
                    if number == 0 or self.budget.left() > 0:
                        for text in list(sides)[:: 1 if number % 2 else -1]:
                            self._round(sides[text], cell, batch, record)
                        self.save()
        finally:
            for side in sides.values():
                side.stop()

    def _seek_largest(self, cell: Cell, record: dict) -> None:
        for text, found in record["sides"].items():
            if "why" in found:
                continue

            def fits(batch: int, text=text, found=found) -> bool | None:
                side = self._start(text, cell, found, alone=True)
                if side is None:
                    return None
                try:
                    if self._warm_up(side, cell, batch, found, None):
                        for _ in range(self.settings.rounds):
                            self._round(side, cell, batch, record)
                        return True
                finally:
                    side.stop()
                    self.save()
                why = found["batches"].get(str(batch), {}).get("why", OPEN)
                return False if why == NO_MEMORY or why.startswith(ENDED) else None

            found["largest"] = largest_batch(fits, self._start_batch(cell, text), 2 if self.settings.small else LARGEST)

    def _start_batch(self, cell: Cell, text: str) -> int:
        """Where the search begins: at what memory would hold if each image took what it took among few."""
        memory = self.results["machine"].get("memory_gib")
        estimates = []
        for record in self.results["records"]:
            other = record["cell"]
            if (other["task"], other["image_size"], other["dtype"]) == (cell.task, cell.image_size, cell.dtype):
                for batch, facts in record["sides"].get(text, {}).get("batches", {}).items():
                    if memory and facts.get("peak_gib"):
                        estimates.append(0.9 * memory * int(batch) / facts["peak_gib"])
        if not estimates:
            return 2 if self.settings.small else 32
        return min(2 ** int(math.log2(max(*estimates, 1))), LARGEST)

    def _expected(self, cell: Cell) -> np.ndarray | None:
        """The logits of the first images in float32 on the processor, where pytorchcv is there."""
        key = cell.task, cell.image_size
        if cell.task == "inference" and key not in self._references and not missing_packages(REFERENCE):
            side = self._start(REFERENCE, dataclasses.replace(cell, dtype="float32"), {})
            answer = side.run(min(COMPARED, max(cell.batches)), 1, self.budget.limit()) if side else {}
            if side:
                side.stop()
            self._references[key] = answer.get("output")
        return self._references.get(key)

    def _start(self, text: str, cell: Cell, found: dict, alone: bool = False) -> Side | None:
        """Returns a side that is ready; else None, and `found` says why."""
        if not self.budget.allows("start", text):
            return None
        log(f"{cell.task}, {cell.image_size} px, {cell.dtype}: {text} starts; {self.budget.left():.0f} s left")
        limit, before = self.budget.limit(), self.budget.left()
        side = Side(text, cell, alone)
        answer = side.wait(limit)
        if "failed" not in answer and answer["device"] != "gpu" and not (self.settings.small or text == REFERENCE):
            answer = {"failed": "its framework sees no GPU"}
        if "failed" in answer:
            side.stop()
            if answer["failed"] != OPEN or limit == LIMIT_SECONDS:
                found |= {"status": "failed", "why": reason(answer)}
            log(f"  {found.get('why', OPEN)}")
            return None
        found |= answer
        self.budget.took("start", text, before - self.budget.left())
        return side

    def _warm_up(self, side: Side, cell: Cell, batch: int, found: dict, expected: np.ndarray | None) -> bool:
        """The first step, which compiles, and the second, in which no memory is new; returns whether both were made."""
        found["status"] = OPEN  # until this batch is settled
        if not self.budget.allows(cell.task, side.text):
            return False
        limit, before = self.budget.limit(), self.budget.left()
        first = second = side.run(batch, 1, limit)
        if "failed" not in first:
            second = side.run(batch, cell.steps if cell.task == "training" else 1, self.budget.limit())
        if "failed" in second:
            if second["failed"] != OPEN or limit == LIMIT_SECONDS:
                found["batches"][str(batch)] = {"why": reason(second)}
                found["status"] = "measured" if len(found["batches"]) > 1 else "failed"
            if second["failed"] == OPEN:
                self.budget.took(cell.task, side.text, math.inf)  # nor will it be ready in the next cell
            log(f"  {side.text}, {number_of_images(batch)}: {reason(second)}")
            return False
        facts = {"first_s": first["seconds"], "second_s": second["seconds"], "peak_gib": second["peak_gib"]}
        facts["seconds"] = []
        if "loss" in first:
            facts["first_loss"] = first["loss"]
        elif expected is not None:
            logits = expected[:batch]
            facts["difference"] = float(np.abs(second["output"] - logits).max() / np.abs(logits).max())
        found["batches"][str(batch)] = facts
        found["status"] = "measured"
        self.budget.took(cell.task, side.text, before - self.budget.left())
        times = f"{first['seconds']:.1f} s, then {second['seconds']:.3f} s"
        log(f"  {side.text}, {number_of_images(batch)}: first step {times}")
        return True

    def _round(self, side: Side, cell: Cell, batch: int, record: dict) -> None:
        seconds = max(self.budget.left(), 0) + ROUNDS_SECONDS
        if side.text == "machine":
            record["rates"].append(side.run(1, 1, seconds).get("rates", {}))
            return
        facts = record["sides"][side.text]["batches"][str(batch)]
        count = cell.steps if cell.task == "training" else passes(facts["second_s"])
        answer = side.run(batch, 1 if self.settings.small else count, seconds)
        if "failed" in answer:
            facts["why"] = reason(answer)
        else:
            facts["seconds"].append(answer["seconds"])


def reason(answer: dict) -> str:
    return f"not ready within {LIMIT_SECONDS} s" if answer["failed"] == OPEN else answer["failed"]


def number_of_images(batch: int) -> str:
    return "1 image" if batch == 1 else f"{batch} images"


def log(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


# The machine


def gpu_state(query: str = "clocks.sm,clocks.mem,temperature.gpu,power.draw,memory.used") -> dict | None:
    """What nvidia-smi tells of the first GPU; None without one."""
    command = ["nvidia-smi", f"--query-gpu={query}", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return dict(zip(query.split(","), map(str.strip, done.stdout.splitlines()[0].split(",")), strict=True))


def machine() -> dict:
    facts = gpu_state("name,driver_version,memory.total,clocks.max.sm,clocks.max.mem,power.limit") or {}
    memory = {"memory_gib": float(facts["memory.total"]) / 1024} if facts else {}
    return {
        "gpu": facts or None,
        **memory,
        "processor": processor(),
        "cores": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        "system": platform.platform(),
        "packages": {"polynet_keras": __version__, **versions(PACKAGES)},
        "variables": {name: os.environ[name] for name in sorted(os.environ) if name.startswith(VARIABLES)},
    }


# The table


def text_of(results: dict) -> str:
    """The results in Markdown."""
    about = results["machine"]
    gpu = about["gpu"]
    found = [side for record in results["records"] for side in record["sides"].values() if side.get("device") == "gpu"]
    where = ", ".join(sorted({side["device_name"] for side in found})) or "no GPU: these numbers only show that it runs"
    if gpu and found:
        where += f", {gpu['memory.total']} MiB, driver {gpu['driver_version']}"
    packages = ", ".join(f"{name} {version}" for name, version in about["packages"].items())
    lines = [
        f"# {results['name']}",
        "",
        f"{where}; {about['processor']}; Python {about['python']}, {packages}; {results['started']}.",
        "",
        *(f"    {command}" for command in results["commands"]),
        "",
        f"Medians (and ranges) of {results['rounds']} rounds in which the sides of a table took turns.",
    ]
    for record in results["records"]:
        cell = record["cell"]
        kind = "" if cell["batches"] else ", the largest batch that fits, each side alone"
        lines += ["", f"## {cell['task']}, {cell['dtype']}, {cell['image_size']} px{kind}", ""]
        rows = rows_of(record)
        if rows:
            lines.append(table(rows))
        if rates := [rate for rate in record.get("rates", []) if rate]:
            product, copy = (statistics.median(rate[name] for rate in rates) for name in ("matmul_tflops", "copy_gbs"))
            lines += ["", f"The device meanwhile: matrix product {product:.3g} TFLOP/s, copy {copy:.4g} GB/s.", ""]
        for text, side in record["sides"].items():
            whys = {batch: facts["why"] for batch, facts in side["batches"].items() if "why" in facts}
            lines += [f"* {text}, {number_of_images(int(batch))}: {why}" for batch, why in whys.items()]
            if "why" in side or (side["status"] == OPEN and not whys):
                lines.append(f"* {text}: {side.get('why', OPEN)}")
    return "\n".join(lines) + "\n"


def rows_of(record: dict) -> list[dict]:
    cell, sides = record["cell"], record["sides"]
    steps = 3 if cell["task"] == "training" else 1
    parts = parts_of(cell)
    gflop = 2 * steps * sum(part.macs for part in parts) / 1e9
    rates = [rate for rate in record.get("rates", []) if rate]
    rows = []
    batches = sorted({int(batch) for side in sides.values() for batch in side["batches"]})
    for batch, text in ((batch, text) for batch in batches for text in sides):
        facts = sides[text]["batches"].get(str(batch), {})
        if not facts.get("seconds"):
            continue
        seconds = statistics.median(facts["seconds"])
        tflops = gflop * batch / seconds / 1e3
        row = {"images": batch, "side": text, "ms a step": spread([1000 * s for s in facts["seconds"]], 1)}
        row["images/s"] = f"{batch / seconds:.1f}"
        base = sides.get(BASE, {}).get("batches", {}).get(str(batch), {})
        if base.get("seconds") and cell["batches"]:
            row[f"speed to {BASE}"] = spread([a / b for a, b in zip(base["seconds"], facts["seconds"], strict=False)])
        row["TFLOP/s"] = f"{tflops:.3g}"
        if rates:
            product, copy = (statistics.median(rate[name] for rate in rates) for name in ("matmul_tflops", "copy_gbs"))
            roof = min(product, intensity(parts, batch, 4 if cell["dtype"] == "float32" else 2) * copy / 1e3)
            row |= {"of the product": f"{tflops / product:.2f}", "of the roof": f"{tflops / roof:.2f}"}
        start = sides[text]["import_s"] + sides[text]["build_s"] + facts["first_s"]
        row |= {"to the first step, s": f"{start:.1f}", "peak, GiB": f"{facts['peak_gib']:.2f}"}
        difference = facts.get("difference")
        if "first_loss" in facts and "first_loss" in base:
            difference = abs(facts["first_loss"] - base["first_loss"]) / abs(base["first_loss"])
        if difference is not None:
            row["difference"] = f"{difference:.1e}"
        rows.append(row)
    return rows


def parts_of(cell: dict):
    from polynet_keras.models.cost import network_cost

    return network_cost(cell["structure"], input_shape=(cell["image_size"], cell["image_size"], 3))


# The command


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--name", help="of the files gpu-NAME.json and gpu-NAME.md; by default the GPU's")
    parser.add_argument("--minutes", type=float, default=25)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--sides", nargs="+", choices=sorted({*TRAINING, *INFERENCE}), help="only these")
    parser.add_argument("--resume", action="store_true", help="measure what gpu-NAME.json lacks")
    parser.add_argument(
        "--small", action="store_true", help="a short network and small images, on any device, one round"
    )
    parser.add_argument("--pack", type=Path, metavar="FILE", help="write a file for a machine without a network")
    parser.add_argument("--python", nargs="+", default=["{}.{}".format(*sys.version_info)], help="of that machine")
    settings = parser.parse_args()
    if settings.pack:
        pack(settings.pack, settings.python)
        return
    if settings.small:
        settings.rounds = 1
    about = machine()
    name = settings.name or re.sub(r"\W+", "-", about["gpu"]["name"].lower() if about["gpu"] else "here")
    path = Path(f"gpu-{name}.json")
    now = datetime.datetime.now().isoformat(timespec="minutes")
    results = {"name": name, "started": now, "small": settings.small, "rounds": settings.rounds, "commands": []}
    results |= {"machine": about, "records": []}
    if settings.resume:
        with contextlib.suppress(FileNotFoundError):
            before = json.loads(path.read_text())
            if any(before[key] != results[key] for key in ("small", "rounds", "machine")):
                parser.error(f"--resume: {path} is of another machine, of other packages or other settings")
            results = before
    results["commands"].append(" ".join(["python", *sys.argv]))
    run = Run(path, results, settings)

    def sides(cell: Cell) -> list[str]:
        return [text for text in TASKS[cell.task] if text in (settings.sides or TASKS[cell.task])]

    def quick(cell: Cell) -> list[str]:
        return [text for text in sides(cell) if "compile" not in text]

    cells = plan(settings.small)
    for part, chosen in ((cells[:2], quick), (cells, sides)):
        results["records"] = without_open(results["records"])
        for cell, texts in list(pending(part, results["records"], chosen)):
            run.measure(cell, texts)
    run.save()
    print(text_of(results))


if __name__ == "__main__":
    main()
