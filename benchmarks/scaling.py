"""How training with N workers, of one core each, compares with one: weak and strong scaling, and where the time goes.

    python benchmarks/scaling.py                                        # G5, 235 px, 8 images a worker, 1 and 2 workers
    python benchmarks/scaling.py --net small --workers 1 2 4 --batch_size 32
    python benchmarks/scaling.py --mode strong --batch_size 16          # 16 images in all
    python benchmarks/scaling.py --communication default "one pack" float16

Every configuration is N processes on this machine, worker i pinned to core i modulo the cores there are, that train
from synthetic images with `fit`; configurations take turns, `--rounds` times. Printed are the medians over steps and
rounds of

    step        seconds from one step's end to the next one's, of the slowest worker
    compute     the same of N processes that train apart at the same time: the cores share memory, caches and clock
    input       seconds until the next batch is there
    collective  the rest
    sum alone   the sum of a step's tensors over the workers with nothing beside it
    efficiency  weak: the time of one worker's step over this one's; strong: the same, divided by the workers

    srun python benchmarks/scaling.py --here --batch_size 16            # on a cluster: every task runs this

With `--here` this process is one of the workers that TF_CONFIG or Slurm name, with all of its devices, and
`--batch_size` images for each of them; the chief prints its step, input and sum alone.

One worker trains without a strategy: what it would take a user who has one machine. With more workers than cores, the
workers' computing shares the cores and the efficiency is at most cores / workers. (Run from the project's folder with
PYTHONPATH=.)
"""

import argparse
import json
import os
import platform
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

NETS = {
    "g5": {"structure": "polynet-g5", "width": 1.0, "image_size": 235, "classes": 1000},
    "small": {
        "structure": "1 x [2-way] | 1 x [poly-3, 2-way] | 1 x [poly-3]",
        "width": 0.25,
        "image_size": 75,
        "classes": 10,
    },
}
COMMUNICATION = {
    "default": {},
    "one pack": {"bytes_per_pack": 0},
    "packs of 1 MiB": {"bytes_per_pack": 2**20},
    "packs of 64 MiB": {"bytes_per_pack": 64 * 2**20},
    "float16": {},
    "TensorFlow's choice": {},
}
"""Arguments of `cluster.strategies.Communication`. "float16" sets the model's `gradient_dtype`; TensorFlow's
choice is a `MultiWorkerMirroredStrategy` without options."""
APART = "apart"
"""Processes that do not know of each other."""


def work(settings: argparse.Namespace) -> None:
    """One worker: trains, and leaves its measurements as JSON."""
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cores[settings.worker % len(cores)]})
    times, _ = measure(settings)
    Path(settings.out).write_text(json.dumps(times))


def work_here(settings: argparse.Namespace) -> None:
    """One worker of a cluster that is there: the chief prints what it measured."""
    from polynet_keras.cluster.cluster import Cluster

    times, replicas = measure(settings)
    if Cluster.from_environment().is_chief:
        step, inputs, sums = (statistics.median(times[name]) for name in ("step", "input", "sum"))
        images = replicas * settings.batch_size
        print(
            f"{settings.net}, {replicas} replicas with {settings.batch_size} images each: {step:.4f} s a step, "
            f"{images / step:.1f} images/s; input {inputs:.4f} s; sum alone {sums:.4f} s, "
            f"{times['bytes'] / 2**20:.0f} MiB"
        )


def measure(settings: argparse.Namespace) -> tuple[dict, int]:
    """Seconds by name, bytes that are summed, and the number of replicas."""
    import keras
    import numpy as np
    import tensorflow as tf

    from polynet_keras import PolyNet
    from polynet_keras.cluster.cluster import Cluster
    from polynet_keras.cluster.communication import Communication
    from polynet_keras.cluster.strategies import open_strategy
    from polynet_keras.training.optimizers import RMSprop

    (communication,) = settings.communication
    cluster = Cluster.from_environment()
    if communication == "TensorFlow's choice":
        strategy = tf.distribute.MultiWorkerMirroredStrategy()
    else:
        strategy = open_strategy("auto", cluster, Communication(**COMMUNICATION.get(communication, {})))
    keras.utils.set_random_seed(0)
    net = NETS[settings.net]
    size = net["image_size"]
    # Each dataset of this process is of one replica.
    count = settings.batch_size
    rng = np.random.default_rng(settings.worker)
    images = tf.constant(rng.normal(size=(count, size, size, 3)).astype("float32"))
    labels = tf.constant(rng.integers(0, net["classes"], count))

    def dataset(*_) -> tf.data.Dataset:
        return tf.data.Dataset.from_tensors((images, labels)).repeat()

    scope = strategy.scope() if strategy else tf.distribute.get_strategy().scope()
    with scope:
        model = PolyNet(
            weights=None,
            structure=net["structure"],
            width=net["width"],
            input_shape=(size, size, 3),
            classes=net["classes"],
            residual_scale=0.3,
        )
        model.gradient_dtype = "float16" if communication == "float16" else "float32"
        model.compile(
            RMSprop(0.01, epsilon=1.0), "sparse_categorical_crossentropy", steps_per_execution=settings.execution
        )
    data = strategy.distribute_datasets_from_function(dataset) if strategy else dataset()
    times: dict = {"step": [], "input": []}

    class Clock(keras.callbacks.Callback):
        end = None

        def on_train_batch_end(self, batch, logs=None):
            float(logs["loss"])
            now = time.perf_counter()
            if self.end is not None:
                times["step"].append((now - self.end) / settings.execution)
            self.end = now

    steps = (settings.steps + 1) * settings.execution
    model.fit(data, steps_per_epoch=steps, epochs=1, verbose=0, callbacks=[Clock()], shuffle=False)
    iterator = iter(data)
    for _ in range(5):
        start = time.perf_counter()
        next(iterator)
        times["input"].append(time.perf_counter() - start)
    size = 2 if communication == "float16" else 4
    times["bytes"] = sum(size * int(np.prod(w.shape)) for w in model.trainable_weights)
    times["bytes"] += sum(4 * int(np.prod(w.shape)) for w in model.non_trainable_weights)
    times["sum"] = sum_alone(strategy, model) if strategy else [0.0]
    return times, strategy.num_replicas_in_sync if strategy else 1


def sum_alone(strategy, model, rounds: int = 5) -> list[float]:
    import tensorflow as tf

    tensors = [tf.zeros(weight.shape, model.gradient_dtype) for weight in model.trainable_weights]

    @tf.function
    def summed():
        def on_replica():
            return tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, tensors)[0]

        return strategy.run(on_replica)

    seconds = []
    for _ in range(rounds + 1):
        start = time.perf_counter()
        summed()
        seconds.append(time.perf_counter() - start)
    return seconds[1:]


def run(workers: int, batch_size: int, communication: str, settings: argparse.Namespace) -> dict:
    """The workers' measurements, of the first one; the step is the slowest worker's."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(workers)]
    addresses = [f"127.0.0.1:{s.getsockname()[1]}" for s in sockets]
    for s in sockets:
        s.close()
    with tempfile.TemporaryDirectory() as folder:
        processes = []
        for worker in range(workers):
            environment = dict(os.environ, TF_CPP_MIN_LOG_LEVEL="3")
            environment.pop("TF_CONFIG", None)
            if workers > 1 and communication != APART:
                task = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": worker}}
                environment["TF_CONFIG"] = json.dumps(task)
            command = [sys.executable, __file__, "--worker", str(worker), "--out", f"{folder}/{worker}.json"]
            command += ["--net", settings.net, "--batch_size", str(batch_size), "--steps", str(settings.steps)]
            command += ["--communication", communication, "--execution", str(settings.execution)]
            processes.append(subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL))
        codes = [process.wait() for process in processes]
        if any(codes):
            raise SystemExit(f"workers ended with {codes}; run one with --worker to see why")
        found = [json.loads(Path(folder, f"{worker}.json").read_text()) for worker in range(workers)]
    steps = [max(step) for step in zip(*(f["step"] for f in found), strict=True)]
    return {**found[0], "step": steps}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--net", choices=NETS, default="g5")
    parser.add_argument("--mode", choices=("weak", "strong"), default="weak")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--batch_size", type=int, default=8, help="images of a worker (weak) or of all (strong)")
    parser.add_argument("--steps", type=int, default=6, help="measured steps of a round")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--communication", nargs="+", choices=(*COMMUNICATION, APART), default=["default"])
    parser.add_argument("--execution", type=int, default=1, help="steps_per_execution")
    parser.add_argument("--here", action="store_true", help="as one worker of a cluster that is there")
    parser.add_argument("--worker", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--out", help=argparse.SUPPRESS)
    settings = parser.parse_args()
    if settings.worker is not None:
        return work(settings)
    if settings.here and len(settings.communication) > 1:
        parser.error("--here measures one way to sum: name one after --communication")
    if settings.here and settings.communication == ["TensorFlow's choice"] and "TF_CONFIG" not in os.environ:
        parser.error("TensorFlow's choice needs TF_CONFIG: it does not know Slurm's variables")
    if settings.here:
        return work_here(settings)

    configurations = [
        (workers, how)
        for workers in settings.workers
        for how in ([APART, *settings.communication] if workers > 1 else [APART])
    ]
    found: dict = {configuration: [] for configuration in configurations}
    for number in range(settings.rounds):
        for workers, communication in configurations:
            batch = settings.batch_size if settings.mode == "weak" else settings.batch_size // workers
            result = run(workers, batch, communication, settings)
            found[workers, communication].append(result)
            step = statistics.median(result["step"])
            print(f"round {number + 1}: {workers} workers, {communication}: {step:.3f} s a step", file=sys.stderr)

    def median(configuration, name: str) -> float:
        return statistics.median(value for result in found[configuration] for value in result[name])

    alone = median(configurations[0], "step")
    import keras
    import tensorflow as tf

    images = f"{settings.batch_size} images {'a worker' if settings.mode == 'weak' else 'in all'}"
    machine = f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores"
    versions = f"TensorFlow {tf.__version__}, Keras {keras.__version__}"
    size = NETS[settings.net]["image_size"]
    print(f"{settings.net}, {size} px, {settings.mode} scaling, {images}; {machine}; {versions}")
    names = ("workers", "communication", "step, s", "compute, s", "collective, s", "input, s", "sum alone, s", "MiB")
    print(f"| {' | '.join(names)} | efficiency |")
    print(f"|{' --- |' * (len(names) + 1)}")
    for workers, communication in configurations:
        if workers > 1 and communication == APART:
            continue
        configuration = workers, communication
        step, inputs, sums = (median(configuration, name) for name in ("step", "input", "sum"))
        compute = median((workers, APART), "step") - inputs
        efficiency = alone / step / (1 if settings.mode == "weak" else workers / configurations[0][0])
        how, size = (communication, found[configuration][0]["bytes"] / 2**20) if workers > 1 else ("", 0)
        seconds = (f"{value:.3f}" for value in (step, compute, step - compute - inputs, inputs, sums))
        print(f"| {workers} | {how} | {' | '.join(seconds)} | {size:.0f} | {efficiency:.3f} |")


if __name__ == "__main__":
    main()
