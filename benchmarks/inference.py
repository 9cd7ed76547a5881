"""G5 in every runtime at hand, in one run: ours, plain Keras 3, PyTorch and tf2cv, beside the machine's own rates.

    PYTHONPATH=. python benchmarks/inference.py --rounds 5 --csv docs/inference.csv --plot docs/roofline.png
    PYTHONPATH=. python benchmarks/inference.py --startup --rounds 3
    PYTHONPATH=. python benchmarks/inference.py --sides machine keras fused --image_size 75 --rounds 1

Every side is a process of its own that holds the network (`inference_sides.py`), and they take turns: in a round each
gets three passes of one image and one of eight, and beside each batch the machine multiplies two 3000 × 3000 matrices
in float32 (sgemm, by PyTorch) and in int8, convolves 2048 channels (1×1, by oneDNN), and adds two arrays that no cache
holds (the triad). All sides at once are too much for 24 GiB, so that there are two groups, one after the other; three
sides are in both. A pass goes from prepared images in memory to logits in memory, the images in the runtime's own
layout. All hold the same random weights, with normalizations whose statistics are those of photographs, and what they
put out for crops of scikit-learn's photographs is compared with the unfused network's: the column `difference` is the
largest of a logit, relative to the largest logit. Printed are, for each batch, medians over the rounds of the
milliseconds of an image, of the speed relative to plain Keras and of the shares of two rates at the same moment,
sgemm's and that of the 1×1 convolution; GFLOP are twice the multiply-accumulates of the unfused network
(`models.cost`). Sides are

    keras             the network as a plain keras.Model of Keras's layers
    polynet_keras     PolyNet
    fused             after `deployment.fuse`; with backend=jax, backend=torch
    saved_model       fused, exported, loaded by TensorFlow
    onnx              fused, exported, in ONNX Runtime; with file=pytorchcv.onnx, pytorchcv's
    openvino          fused, exported, in OpenVINO; with file=int8.xml quantized by NNCF, with file=pytorchcv.xml
                      pytorchcv's; with shape=static,batch=1, hint=throughput
    pytorchcv         pytorchcv's polynet, channels_last; with compile=1, torch.compile with freezing
    tf2cv             tf2cv's polynet on tf-keras
    machine           the rates

Options in capitals are environment variables of the side's process: `fused,TF_ONEDNN_ASSUME_FROZEN_WEIGHTS=1`.
With `--startup` each side is started alone and in turn: seconds to import, build, load and predict one image for the
first time. With `--folder`, the weights and exported files (4 GB) are kept there for the next run. Needs the extras
`deploy`, `parity` and `data`, jax and 20 GiB of free memory; run from the project's folder.
"""

import argparse
import contextlib
import csv
import datetime
import importlib.metadata
import itertools
import os
import platform
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from inference_sides import G5, Side, prepare, split

FROZEN = "fused,TF_ONEDNN_ASSUME_FROZEN_WEIGHTS=1"
"""On processors where TensorFlow uses oneDNN: weights are brought into its layout once, not at every pass."""
GROUPS = (
    (
        "machine",
        "keras",
        "polynet_keras",
        "fused",
        FROZEN,
        "onnx",
        "openvino",
        "openvino,file=int8.xml",
        "pytorchcv",
        "pytorchcv,compile=1",
    ),
    (
        "machine",
        "keras",
        "fused",
        "fused,backend=jax",
        "fused,backend=torch",
        "saved_model",
        "onnx,file=pytorchcv.onnx",
        "openvino,file=pytorchcv.xml",
        "tf2cv",
    ),
)
"""Of sides that take turns: memory does not hold all. The first three or so are in both, to be compared with."""
PEERS = ("pytorchcv", "tf2cv")
PACKAGES = (
    *("tensorflow", "keras", "torch", "jax", "onnxruntime", "openvino"),
    *("nncf", "pytorchcv", "tf2cv", "tf_keras", "tf2onnx"),
)
RATES = {
    "sgemm": "sgemm, GFLOP/s",
    "conv": "1×1 convolution, GFLOP/s",
    "int8": "int8 product, GOP/s",
    "triad": "triad, GB/s",
}


def is_peer(text: str) -> bool:
    return any(peer in text for peer in PEERS)


def machine(settings) -> str:
    with open("/proc/cpuinfo") as file:
        names = [line.split(":")[1].strip() for line in file if line.startswith("model name")]
    found = [f"{package} {version}" for package, version in versions(PACKAGES).items()]
    return (
        f"{settings.structure}, {settings.image_size} px; {settings.threads} threads of {len(names)} cores {names[0]}, "
        f"{datetime.date.today()}, Python {platform.python_version()}, {', '.join(found)}"
    )


def versions(packages) -> dict[str, str]:
    """Of those that are installed."""
    found = {}
    for package in packages:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[package] = importlib.metadata.version(package)
    return found


def started(texts, settings, files: Path) -> list[Side]:
    """All at once, since most of a start keeps one core busy; each has then run its batches twice."""
    start = time.perf_counter()
    sides = [Side(text, settings, files) for text in texts]
    # The second pass still takes new memory.
    requests = {side: [batch for batch in sizes(side.text, settings) for _ in range(2)] for side in sides}
    for side in sides:
        for batch in requests[side]:
            side.ask((batch, 1))
    alive = []
    for side in sides:
        try:
            side.wait_until_loaded()
            for _ in requests[side]:
                answer = side.answer()
        except (EOFError, ConnectionError):
            print(f"{side.text}: its process died; it is left out", file=sys.stderr, flush=True)
            continue
        seconds = time.perf_counter() - start
        print(f"{side.text}: ready after {seconds:.0f} s, {answer['peak_gib']:.2f} GiB", file=sys.stderr, flush=True)
        alive.append(side)
    return alive


def sizes(text: str, settings) -> list[int]:
    """A side of a static batch runs that one only; the machine's rates are of no batch."""
    batch = split(text)[1].get("batch")
    if text == "machine":
        return [1]
    return [int(batch)] if batch else settings.batch_size


def check_idle(sides: list[Side]) -> None:
    """A runtime whose threads spin while they wait would slow all others."""
    before = [side.processor_seconds() for side in sides]
    time.sleep(2)
    for side, used in zip(sides, before, strict=True):
        share = (side.processor_seconds() - used) / 2
        if share > 0.02:
            print(f"{side.text}: uses {share:.0%} of a core while it waits", file=sys.stderr)


def busy_seconds() -> float:
    """Of all cores, since the machine started."""
    user, nice, system, _, _, *interrupts = (int(x) for x in Path("/proc/stat").read_text().split("\n")[0].split()[1:9])
    return (user + nice + system + sum(interrupts)) / os.sysconf("SC_CLK_TCK")


def rounds(sides: list[Side], settings, expected: np.ndarray) -> tuple[dict, dict]:
    """For each batch and side the seconds an image in each round, and the rates; memory and differences in `facts`."""
    seconds: dict = {}
    facts: dict = {side.text: {} for side in sides}
    for number in range(settings.rounds):
        print(f"round {number + 1} of {settings.rounds}", file=sys.stderr, flush=True)
        for batch in settings.batch_size:
            for side in sides if number % 2 else sides[::-1]:
                if side.text == "machine":
                    for name, rate in side.run(1)["output"].items():
                        seconds.setdefault((batch, name), []).append(rate)
                elif batch in sizes(side.text, settings):
                    answer = side.run(batch, 3 if batch == 1 else 1)
                    seconds.setdefault((batch, side.text), []).append(answer["seconds"] / batch)
                    difference = np.abs(answer["output"] - expected[:batch]).max() / np.abs(expected[:batch]).max()
                    facts[side.text][batch] = (answer["peak_gib"], difference)
    return seconds, facts


def rows_of(seconds: dict, facts: dict, settings) -> list[dict]:
    gflop = 2 * sum(part.macs for part in cost(settings)) / 1e9
    rows = []
    for (batch, text), values in seconds.items():
        if text in RATES:
            continue
        row = {"batch": batch, "side": text, "ms an image": f"{1000 * statistics.median(values):.0f}"}
        row["images/s"] = f"{1 / statistics.median(values):.2f}"
        if (batch, "keras") in seconds:
            ratios = [base / value for base, value in zip(seconds[batch, "keras"], values, strict=True)]
            row["speed to keras"] = spread(ratios)
        row["GFLOP/s"] = f"{gflop / statistics.median(values):.0f}"
        for rate, label in (("sgemm", "of sgemm"), ("conv", "of 1×1")):
            if (batch, rate) in seconds:
                pairs = zip(values, seconds[batch, rate], strict=True)
                row[label] = spread([gflop / value / now for value, now in pairs])
        peak, difference = facts[text][batch]
        row |= {"peak RSS, GiB": f"{peak:.2f}", "difference": f"{difference:.1e}"}
        rows.append(row)
    return rows


def spread(values: list[float], digits: int = 2) -> str:
    middle, low, high = (f"{value:.{digits}f}" for value in (statistics.median(values), min(values), max(values)))
    return f"{middle} ({low}-{high})"


def cost(settings):
    # Not at the top: the sides' processes import this file, and must not get TensorFlow with it.
    from polynet_keras.models.cost import network_cost

    return network_cost(settings.structure, input_shape=(settings.image_size, settings.image_size, 3))


def table(rows: list[dict]) -> str:
    """In Markdown, with a column for every key."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    lines = [f"| {' | '.join(names)} |", f"|{' --- |' * len(names)}"]
    return "\n".join([*lines, *(f"| {' | '.join(str(row.get(name, '')) for name in names)} |" for row in rows)])


def compare(groups, settings, files: Path) -> None:
    print(f"{machine(settings)}, {settings.rounds} rounds\n")
    numbers = []
    for group in groups:
        sides = started(group, settings, files)
        check_idle(sides)
        start, all_ = time.perf_counter(), busy_seconds()
        own = sum(side.processor_seconds() for side in sides)
        seconds, facts = rounds(sides, settings, np.load(files / "logits.npy"))
        others = busy_seconds() - all_ - (sum(side.processor_seconds() for side in sides) - own)
        others /= time.perf_counter() - start
        for side in sides:
            side.stop()
        numbers.append(seconds)
        rows = rows_of(seconds, facts, settings)
        for batch in settings.batch_size:
            print(table([row for row in rows if row["batch"] == batch]))
            rates = {label: seconds[batch, name] for name, label in RATES.items() if (batch, name) in seconds}
            print("\n" + "; ".join(f"{label} {spread(values, 0)}" for label, values in rates.items()) + "\n")
            print(f"Other processes kept {others:.2f} cores busy meanwhile.\n")
            print_goals(batch, seconds, settings)
    if settings.csv:
        write_csv(settings.csv, numbers)
    if settings.plot:
        from roofline import draw, read

        draw(settings.plot, read(settings.csv), cost(settings), machine(settings))


def write_csv(path: str, numbers: list[dict]) -> None:
    with open(path, "w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("group", "batch", "side", "round", "value", "unit"))
        for group, seconds in enumerate(numbers, 1):
            for (batch, text), values in seconds.items():
                unit = RATES[text].split(", ")[1] if text in RATES else "s an image"
                writer.writerows((group, batch, text, n, f"{value:.5g}", unit) for n, value in enumerate(values, 1))


def print_goals(batch: int, seconds: dict, settings) -> None:
    """The goals that the sides of this run decide, as medians of the rounds' ratios."""

    def ratio(name: str, over: str) -> str:
        pairs = zip(seconds[batch, over], seconds[batch, name], strict=True)
        return spread([theirs / ours for theirs, ours in pairs])

    torch_sides = [text for size, text in seconds if size == batch and text.startswith("pytorchcv")]
    best = min(torch_sides, key=lambda text: statistics.median(seconds[batch, text]), default=None)
    goals = [
        ("fused on TensorFlow to plain Keras", "fused", "keras", 1.2),
        ("fused on TensorFlow, frozen, to plain Keras", FROZEN, "keras", 1.2),
        (f"fused on TensorFlow to the best PyTorch ({best})", "fused", best, 1.0),
        (f"fused on TensorFlow, frozen, to the best PyTorch ({best})", FROZEN, best, 1.0),
        ("OpenVINO int8 to OpenVINO float32", "openvino,file=int8.xml", "openvino", 3.5),
    ]
    for label, name, over, goal in goals:
        if (batch, name) in seconds and (batch, over) in seconds:
            print(f"* batch {batch}: {label}: {ratio(name, over)}; the goal is {goal}")
    if (batch, "openvino") in seconds and (batch, "sgemm") in seconds:
        gflop = 2 * sum(part.macs for part in cost(settings)) / 1e9
        pairs = zip(seconds[batch, "openvino"], seconds[batch, "sgemm"], strict=True)
        print(
            f"* batch {batch}: OpenVINO float32 to sgemm: {spread([gflop / s / rate for s, rate in pairs])}; "
            "the goal is 0.95"
        )
    print()


def start_up(groups, settings, files: Path) -> None:
    names = ("import", "build", "load", "first prediction")
    found: dict[str, list[list[float]]] = {}
    peaks: dict[str, float] = {}
    texts = [text for text in dict.fromkeys(itertools.chain(*groups)) if text != "machine"]
    for number in range(settings.rounds):
        for text in texts if number % 2 else texts[::-1]:
            start = time.perf_counter()
            side = Side(text, settings, files)
            side.wait_until_loaded()
            answer = side.run(1)
            total = time.perf_counter() - start
            found.setdefault(text, []).append([*side.phases.values(), answer["seconds"], total])
            peaks[text] = answer["peak_gib"]
            side.stop()
            print(f"round {number + 1}, {text}: {total:.1f} s", file=sys.stderr, flush=True)
    rows = []
    for text in texts:
        medians = [statistics.median(column) for column in zip(*found[text], strict=True)]
        row = {"side": text} | {f"{name}, s": f"{value:.1f}" for name, value in zip(names, medians[:-1], strict=True)}
        rows.append(row | {"in all, s": f"{medians[-1]:.1f}", "peak RSS, GiB": f"{peaks[text]:.2f}"})
    print(f"{machine(settings)}, {settings.rounds} rounds, one image\n")
    print(table(rows))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sides", nargs="+", metavar="SIDE", help="by default two groups, one after the other")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch_size", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--image_size", type=int, default=331)
    parser.add_argument("--structure", default=G5, help="another than G5 is not timed in the peers, which have none")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--startup", action="store_true", help="seconds to the first prediction instead")
    parser.add_argument("--folder", type=Path, help="where the weights and the exported files are kept")
    parser.add_argument("--csv", help="file for every round's numbers")
    parser.add_argument("--plot", help="PNG of the roofline")
    settings = parser.parse_args()
    settings.largest = max(settings.batch_size)
    if settings.plot and not settings.csv:
        parser.error("--plot is drawn from the file of --csv: name one")
    groups = [settings.sides] if settings.sides else GROUPS
    for text in itertools.chain(*groups):
        split(text)
    if settings.structure != G5:
        groups = [[text for text in group if not is_peer(text)] for group in groups]
    with tempfile.TemporaryDirectory() as scratch:
        files = settings.folder or Path(scratch)
        files.mkdir(parents=True, exist_ok=True)
        prepare(settings, files)
        (start_up if settings.startup else compare)(groups, settings, files)


if __name__ == "__main__":
    main()
