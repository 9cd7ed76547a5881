"""How long a training takes to its first step with N processes of one device, and with one process of N devices.

    PYTHONPATH=. python benchmarks/first_step.py --counts 1 2 4 --rounds 3

The devices are processors, so that this runs without GPUs. `polynet launch --workers N` starts N processes, which train
under our multi-worker strategy. One process divides its processor into N logical devices, which train under a
MirroredStrategy. The ways take turns. Printed are medians (and ranges) over the rounds of the chief's seconds from the
call of `fit` to the end of its first step, which is traced there, and of the second step. N processes share the cores:
with fewer cores than processes, their first steps take longer than on a machine with a core for each.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from inference import spread, table, versions
from scaling import NETS
from training import processor

NET = NETS["small"]
IMAGES = 8
"""Of each device."""


def work(path: Path, devices: int) -> None:
    """One process: trains two steps; the chief writes its seconds."""
    import keras
    import numpy as np
    import tensorflow as tf

    from polynet_keras import PolyNet
    from polynet_keras.cluster import Cluster, open_strategy

    cluster = Cluster.from_environment()
    if devices > 1:
        (cpu,) = tf.config.list_physical_devices("CPU")
        tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * devices)
        strategy = tf.distribute.MirroredStrategy([f"CPU:{device}" for device in range(devices)])
    else:
        strategy = open_strategy(cluster=cluster) or tf.distribute.get_strategy()
    keras.utils.set_random_seed(0)
    size, count = NET["image_size"], IMAGES * strategy.num_replicas_in_sync
    images = np.random.default_rng(0).normal(size=(count, size, size, 3)).astype("float32")
    data = tf.data.Dataset.from_tensor_slices((images, np.arange(count) % NET["classes"])).repeat().batch(count)
    with strategy.scope():
        model = PolyNet(
            weights=None,
            structure=NET["structure"],
            width=NET["width"],
            input_shape=(size, size, 3),
            classes=NET["classes"],
        )
        model.compile(keras.optimizers.SGD(1e-4), "sparse_categorical_crossentropy")
    ends = []

    class Clock(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            float(logs["loss"])
            ends.append(time.perf_counter())

    start = time.perf_counter()
    model.fit(data, steps_per_epoch=2, shuffle=False, verbose=0, callbacks=[Clock()])
    if cluster.is_chief:
        path.write_text(json.dumps([ends[0] - start, ends[1] - ends[0]]))


def measured(way: str, count: int) -> tuple[float, float]:
    """Returns the seconds of the first step and of the second one."""
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1"}
    environment.pop("TF_CONFIG", None)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "seconds.json")
        devices = count if way == "devices" else 1
        command = [sys.executable, __file__, "--work", str(path), "--devices", str(devices)]
        if way == "processes":
            start = "import sys; from polynet_keras.cli.main import main; sys.exit(main())"
            command = [sys.executable, "-c", start, "launch", f"--workers={count}", "--max_restarts=0", "--", *command]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"{way}, {count}: {done.stderr[-3000:]}")
        first, second = json.loads(path.read_text())
    return first, second


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--counts", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--devices", type=int, default=1, help=argparse.SUPPRESS)
    settings = parser.parse_args()
    if settings.work:
        work(settings.work, settings.devices)
        return
    found: dict[tuple[int, str], list[tuple[float, float]]] = {}
    for number in range(settings.rounds):
        for count in settings.counts:
            for way in ("processes", "devices")[:: 1 if number % 2 else -1]:
                found.setdefault((count, way), []).append(measured(way, count))
                print(
                    f"round {number + 1}: {count} {way}: first step {found[count, way][-1][0]:.1f} s", file=sys.stderr
                )
    packages = ", ".join(f"{name} {version}" for name, version in versions(("tensorflow", "keras")).items())
    print(f"{processor()}, {len(os.sched_getaffinity(0))} usable; {packages}\n")
    rows = []
    for count in settings.counts:
        row: dict = {"N": count}
        for way, text in (("processes", "N processes"), ("devices", "one process")):
            first, second = zip(*found[count, way], strict=True)
            row |= {f"{text}: first step, s": spread(list(first), 1), f"{text}: second step, s": spread(list(second))}
        rows.append(row)
    print(table(rows))


if __name__ == "__main__":
    main()
