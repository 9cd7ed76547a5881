"""Where a pass of G5 spends its time, by operation: what `benchmarks/inference.py` measures, taken apart.

    PYTHONPATH=. python benchmarks/inference_profile.py --folder FILES
    TF_ENABLE_ONEDNN_OPTS=1 PYTHONPATH=. python benchmarks/inference_profile.py --folder FILES --sides keras fused

Sides, options and the files in the folder are those of `inference.py` (TensorFlow's and OpenVINO's only). Each is run
alone, its operations one after another, so that their times add up to the pass; each of them still uses all threads.
A profiled pass takes some percent longer. TensorFlow uses oneDNN by default where the processor has VNNI or the like,
and elsewhere with TF_ENABLE_ONEDNN_OPTS=1.
"""

import argparse
import multiprocessing
import os
import statistics
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from inference import FROZEN, machine, table
from inference_sides import G5, SIDES, compiled_openvino, enter, prepare, split
from operation_times import Times, openvino_times, tensorflow_times

PROFILED = ("keras", "fused", FROZEN, "openvino", "openvino,file=int8.xml")
TENSORFLOW = ("keras", "polynet_keras", "fused", "saved_model")
WARM_PASSES = 3
SMALLEST_SHARE = 0.003
"""Of a pass's time: what takes less is summed up."""


def profile(connection, text: str, settings, files: Path) -> None:
    """In a process of its own: sends the times of a pass for each batch."""
    name, _ = enter(text, settings)
    os.environ["TF_NUM_INTEROP_THREADS"] = "1"
    images = np.load(files / "images.npy")
    times = _openvino if name == "openvino" else _tensorflow
    connection.send(dict(times(text, settings, files, images)))


def _tensorflow(text: str, settings, files: Path, images: np.ndarray) -> Iterator[tuple[int, Times]]:
    name, options = split(text)
    *_, run = SIDES[name](options, settings, files)
    for batch in settings.batch_size:
        for _ in range(WARM_PASSES):
            run(images[:batch])
        passes = [tensorflow_times(lambda batch=batch: run(images[:batch])) for _ in range(settings.passes)]
        yield (
            batch,
            {
                operation: (statistics.median(times[operation][0] for times in passes), calls)
                for operation, (_, calls) in passes[0].items()
            },
        )


def _openvino(text: str, settings, files: Path, images: np.ndarray) -> Iterator[tuple[int, Times]]:
    for batch in settings.batch_size:
        # Compiled for each batch, since OpenVINO counts from then on: its times are means of all passes.
        compiled, channels_first = compiled_openvino(split(text)[1], settings, files, profiled=True)
        request = compiled.create_infer_request()
        batch_images = images[:batch]
        for _ in range(WARM_PASSES + settings.passes):
            request.infer({0: batch_images.transpose(0, 3, 1, 2) if channels_first else batch_images})
        yield batch, openvino_times(request)


def rows_of(found: dict[int, Times]) -> list[dict]:
    sums = {batch: sum(ms for ms, _ in times.values()) for batch, times in found.items()}
    names = dict.fromkeys(name for times in found.values() for name in times)
    large = [n for n in names if any(t.get(n, (0, 0))[0] >= SMALLEST_SHARE * sums[b] for b, t in found.items())]
    groups = {name: [name] for name in large} | {"others": [n for n in names if n not in large], "all": list(names)}
    rows = []
    for label, members in groups.items():
        row: dict = {"operation": label}
        for batch, times in found.items():
            chosen = [times[name] for name in members if name in times]
            ms = sum(ms for ms, _ in chosen)
            row["calls"] = sum(calls for _, calls in chosen)
            row |= {f"batch {batch}, ms": f"{ms:.1f}", f"share of {batch}": f"{ms / sums[batch]:.1%}"}
        rows.append(row)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sides", nargs="+", metavar="SIDE", default=PROFILED)
    parser.add_argument("--batch_size", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--image_size", type=int, default=331)
    parser.add_argument("--structure", default=G5)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--passes", type=int, default=5, help="that are profiled; printed are medians")
    parser.add_argument("--folder", type=Path, help="where the weights and the exported files are kept")
    settings = parser.parse_args()
    settings.largest = max(settings.batch_size)
    for text in settings.sides:
        if split(text)[0] not in (*TENSORFLOW, "openvino"):
            parser.error(f"--sides: {text!r} has no profiler here; choose of {', '.join(TENSORFLOW)}, openvino")
    print(machine(settings))
    with tempfile.TemporaryDirectory() as scratch:
        files = settings.folder or Path(scratch)
        files.mkdir(parents=True, exist_ok=True)
        prepare(settings, files)
        context = multiprocessing.get_context("spawn")
        for text in settings.sides:
            receiver, sender = context.Pipe(duplex=False)
            process = context.Process(target=profile, args=(sender, text, settings, files))
            process.start()
            sender.close()  # so that a process that dies is an EOFError here
            found = receiver.recv()
            process.join()
            print(f"\n{text}\n", flush=True)
            print(table(rows_of(found)))


if __name__ == "__main__":
    main()
