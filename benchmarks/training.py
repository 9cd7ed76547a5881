"""Training steps of G5 from the user's `compile` and `fit`, beside plain Keras 3 and eager PyTorch.

    python benchmarks/training.py --image_size 235 --batch_size 4 --rounds 7 --json result.json
    python benchmarks/training.py --losses 20
    python benchmarks/training.py --sides polynet_keras polynet_keras,remat=stage_b polynet_keras,remat=all
    python benchmarks/training.py --sides polynet_keras polynet_keras,backend=jax polynet_keras,backend=torch

Every side is a process of its own that holds the network, and they take turns: a round is one step of each. Printed
are the medians, the median and the range of the rounds' ratios to the first side, the seconds to build the network and
from `fit` to the end of the first step (in PyTorch: the first step), and each process's resident memory: after its
imports, and the peak. Sides are

    pytorch           pytorchcv's polynet, eager, channels_last, torch.optim.RMSprop
    keras             the same network as a plain keras.Model of Keras's layers, keras.optimizers.RMSprop
    polynet_keras     PolyNet, training.optimizers.RMSprop with epsilon outside the root as PyTorch has it;
                      with options: remat=stage_b, remat=all, policy=mixed_bfloat16, epsilon=inside, backend=jax,
                      backend=torch

With `--profile`, one of our steps is traced and the time of its operations printed, summed over TensorFlow's threads.

With `--losses N` they train on the same N batches from the same weights, one after another, residual paths scaled by
0.3 as the authors advise for training from scratch, and it prints by how much the losses differ, beside how much
PyTorch differs from itself when every weight is moved by a unit in the last place: float32 cannot promise more than
that. (Extra `test`; run from the project's folder with PYTHONPATH=.)
"""

import argparse
import importlib
import json
import multiprocessing
import os
import platform
import resource
import statistics
import sys
import time

import numpy as np
from side_process import SideProcess

RATE, RHO, EPSILON = 0.045, 0.9, 1.0
"""RMSprop as for Inception nets; so large an ε keeps rounding errors from growing."""
LOSSES_RATE = 1e-3
"""Rate for `--losses`: at 0.045 the loss jumps about, and no two runs stay together."""
SCALE = 0.3
SIDES = ("pytorch", "keras", "polynet_keras")


def batch_of(step: int, batch_size: int, image_size: int):
    rng = np.random.default_rng(step)
    images = rng.normal(size=(batch_size, image_size, image_size, 3)).astype("float32")
    return images, rng.integers(0, 1000, batch_size)


def peak_gib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def run_keras(connection, side: str, options: dict, settings: argparse.Namespace) -> None:
    """`compile` and `fit` as users write them; a callback waits for its turn before each step."""
    os.environ["KERAS_BACKEND"] = backend = options.get("backend", "tensorflow")
    # TensorFlow prepares the batches on every backend.
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(settings.threads)
    tf.config.threading.set_inter_op_parallelism_threads(settings.threads)
    import keras

    from polynet_keras import PolyNet
    from polynet_keras.layers import BatchNormalization
    from polynet_keras.training.optimizers import RMSprop

    libraries = peak_gib()
    if "policy" in options:
        keras.config.set_dtype_policy(options["policy"])
    keras.utils.set_random_seed(0)
    size = settings.image_size

    def plain_layer(layer):
        cls = keras.layers.BatchNormalization if isinstance(layer, BatchNormalization) else type(layer)
        return cls.from_config(layer.get_config())

    start = time.perf_counter()
    scale = SCALE if settings.losses else None
    model = PolyNet(weights=None, input_shape=(size, size, 3), residual_scale=scale, remat=options.get("remat", "none"))
    rate = LOSSES_RATE if settings.losses else RATE
    optimizer = RMSprop(rate, RHO, epsilon=EPSILON, epsilon_inside_root=options.get("epsilon") == "inside")
    if side == "keras":
        start = time.perf_counter()
        model = keras.models.clone_model(keras.Model(model.inputs, model.outputs), clone_function=plain_layer)
        optimizer = keras.optimizers.RMSprop(rate, RHO, epsilon=EPSILON)
    build = time.perf_counter() - start
    if settings.losses:
        model.load_weights(settings.weights)

    class Turns(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch, logs=None):
            if batch and connection.recv() == "stop":
                raise KeyboardInterrupt
            self.start = time.perf_counter()

        def on_train_batch_end(self, batch, logs=None):
            now = time.perf_counter()
            answer = {"seconds": now - self.start, "loss": float(logs["loss"]), "peak_gib": peak_gib()}
            if batch == 0:
                answer |= {"first_s": now - fit_start, "build_s": build, "libraries_gib": libraries}
            # Keras reports the mean loss so far: the step's own is what it adds.
            answer["loss"] = answer["loss"] * (batch + 1) - getattr(self, "total", 0.0)
            self.total = getattr(self, "total", 0.0) + answer["loss"]
            connection.send(answer)

    def batches():
        for step in range(10**6):
            yield batch_of(step, settings.batch_size, size)

    shapes = (tf.TensorSpec((settings.batch_size, size, size, 3)), tf.TensorSpec((settings.batch_size,), tf.int64))
    dataset = tf.data.Dataset.from_generator(batches, output_signature=shapes).prefetch(1)
    connection.recv()
    model.compile(optimizer, "sparse_categorical_crossentropy")
    fit_start = time.perf_counter()
    try:
        model.fit(dataset, steps_per_epoch=10**6, callbacks=[Turns()], shuffle=False, verbose=0)
    except KeyboardInterrupt:
        package = {"tensorflow": "TensorFlow", "jax": "JAX", "torch": "PyTorch"}[backend]
        version = importlib.import_module(backend).__version__
        connection.send({"versions": f"{package} {version}, Keras {keras.__version__}"})


def run_pytorch(connection, side: str, options: dict, settings: argparse.Namespace) -> None:
    import torch

    torch.set_num_threads(settings.threads)
    torch.manual_seed(0)
    from pytorchcv.models.polynet import polynet

    libraries = peak_gib()
    start = time.perf_counter()
    net = polynet(dropout_rate=0.0, in_size=(settings.image_size, settings.image_size))
    net.features.final_pool = torch.nn.AdaptiveAvgPool2d(1)
    net = net.to(memory_format=torch.channels_last).train()
    build = time.perf_counter() - start
    if settings.losses:
        for module in net.modules():
            if hasattr(module, "scale"):
                module.scale = SCALE
        net.load_state_dict(torch.load(f"{settings.weights}.pt", weights_only=True))
        if "ulp" in options:
            with torch.no_grad():
                for parameter in net.parameters():
                    parameter.mul_(1 + 2.0**-24 * torch.sign(torch.randn_like(parameter)).mul_(1.5))
    rate = LOSSES_RATE if settings.losses else RATE
    optimizer = torch.optim.RMSprop(net.parameters(), lr=rate, alpha=RHO, eps=EPSILON)
    step = 0
    while connection.recv() != "stop":
        images, labels = batch_of(step, settings.batch_size, settings.image_size)
        start = time.perf_counter()
        x = torch.from_numpy(images).permute(0, 3, 1, 2)  # channels_last as it is
        optimizer.zero_grad(set_to_none=True)
        loss = torch.nn.functional.cross_entropy(net(x), torch.from_numpy(labels))
        loss.backward()
        optimizer.step()
        seconds = time.perf_counter() - start
        answer = {"seconds": seconds, "loss": loss.item(), "peak_gib": peak_gib()}
        if step == 0:
            answer |= {"first_s": seconds, "build_s": build, "libraries_gib": libraries}
        connection.send(answer)
        step += 1
    connection.send({"versions": f"PyTorch {torch.__version__}"})


class Side(SideProcess):
    """A process that holds one network."""

    def __init__(self, text: str, settings: argparse.Namespace):
        side, *options = text.split(",")
        if side not in SIDES:
            raise SystemExit(f"--sides: {side!r} is not one of {', '.join(SIDES)}")
        target = run_pytorch if side == "pytorch" else run_keras
        super().__init__(text, target, side, dict(option.split("=") for option in options), settings)

    def step(self) -> dict:
        self.ask("step")
        return self.answer()

    def stop(self) -> dict:
        self.ask("stop")
        answer = self.answer()
        self.process.join()
        return answer


def write_weights(settings: argparse.Namespace, folder: str) -> None:
    """One set of weights in both forms, by the table that the tests prove."""
    import torch
    from pytorchcv.models.polynet import polynet

    from polynet_keras import PolyNet
    from polynet_keras.pretrained.name_maps import pytorchcv

    size = settings.image_size
    model = PolyNet(weights=None, input_shape=(size, size, 3), residual_scale=SCALE)
    net = polynet(dropout_rate=0.0)
    state = net.state_dict()
    for source, layer in pytorchcv().items():
        # In Keras's order: of a convolution the first, of the classifier two, of a normalization all.
        names = ("weight", "bias", "running_mean", "running_var")
        for name, value in zip(names, model.get_layer(layer).get_weights(), strict=False):
            value = value.transpose(3, 2, 0, 1) if value.ndim == 4 else value.T
            state[f"{source}.{name}"].copy_(torch.from_numpy(value.copy()))
    settings.weights = f"{folder}/same.weights.h5"
    model.save_weights(settings.weights)
    net.features.final_pool = torch.nn.AdaptiveAvgPool2d(1)
    torch.save(net.state_dict(), f"{settings.weights}.pt")


def compare_losses(settings: argparse.Namespace) -> dict:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        context = multiprocessing.get_context("spawn")
        settings.weights = f"{folder}/same.weights.h5"
        writer = context.Process(target=write_weights, args=(settings, folder))
        writer.start()
        writer.join()
        losses = {}
        for text in ("pytorch", "pytorch,ulp=1", "polynet_keras"):
            side = Side(text, settings)
            losses[text] = []
            for step in range(settings.losses):
                losses[text].append(side.step()["loss"])
                print(f"{text} step {step}: loss {losses[text][-1]:.5f}", file=sys.stderr)
            side.stop()
    theirs, moved, ours = losses.values()
    print(f"{'step':>4}{'pytorch':>12}{'polynet_keras':>16}{'relative':>12}{'pytorch moved':>16}")
    inside, bound = True, 0.0
    for step, (a, b, c) in enumerate(zip(theirs, moved, ours, strict=True)):
        # A rounding difference acts on: what a step may differ by is what one of it has made of itself by then.
        bound = max(bound, abs(b - a) / a)
        inside &= abs(c - a) / a <= 1e-5 + 3 * bound
        print(f"{step:>4}{a:>12.6f}{c:>16.6f}{abs(c - a) / a:>12.1e}{abs(b - a) / a:>16.1e}")
    print(f"every step within 1e-5 + 3 × (what PyTorch differs from itself): {inside}")
    return {"losses": losses, "inside": inside}


def compare_steps(settings: argparse.Namespace) -> dict:
    sides = []
    results: dict = {}
    for text in settings.sides:  # the next one starts when this one has taken its first step
        side = Side(text, settings)
        first = side.step()
        once = ("build_s", "first_s", "libraries_gib")
        results[text] = {**{name: first[name] for name in once}, "step_s": []}
        print(f"{text}: first step after {first['first_s']:.1f} s", file=sys.stderr)
        sides.append(side)
    for side in sides:
        side.step()  # the second still takes new memory
    for number in range(settings.rounds):
        for side in sides if number % 2 else sides[::-1]:
            answer = side.step()
            results[side.text]["step_s"].append(answer["seconds"])
            results[side.text]["peak_gib"] = answer["peak_gib"]
    versions = ", ".join(sorted({side.stop()["versions"] for side in sides}))
    print(
        f"\n{settings.image_size} px, batch {settings.batch_size}, {settings.rounds} rounds; ratios to {sides[0].text};"
    )
    print(f"{settings.threads} threads, {processor()}, Python {platform.python_version()}, {versions}\n")
    print("| side | s a step | ratio | s to first step | s to build | libraries, GiB | peak RSS, GiB | ratio |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    base = results[sides[0].text]
    for text, side in results.items():
        pairs = zip(side["step_s"], base["step_s"], strict=True)
        ratios = [a / b for a, b in pairs]
        side["step_ratio"] = statistics.median(ratios)
        spread = f"{side['step_ratio']:.2f} ({min(ratios):.2f}-{max(ratios):.2f})"
        side["peak_ratio"] = side["peak_gib"] / base["peak_gib"]
        memory = f"{side['libraries_gib']:.2f} | {side['peak_gib']:.2f} | {side['peak_ratio']:.2f}"
        print(
            f"| {text} | {statistics.median(side['step_s']):.2f} | {spread} | {side['first_s']:.1f} "
            f"| {side['build_s']:.1f} | {memory} |"
        )
    return results


def profile(settings: argparse.Namespace) -> dict:
    """Which operations the time of a step goes to."""
    import keras
    import tensorflow as tf
    from operation_times import tensorflow_peak, tensorflow_times

    from polynet_keras import PolyNet
    from polynet_keras.training.optimizers import RMSprop

    size = settings.image_size
    model = PolyNet(weights=None, input_shape=(size, size, 3))
    model.compile(RMSprop(RATE, RHO, epsilon=EPSILON), "sparse_categorical_crossentropy")
    batch = batch_of(0, settings.batch_size, size)
    for _ in range(3):
        start = time.perf_counter()
        model.train_on_batch(*batch)
        seconds = time.perf_counter() - start
    totals = tensorflow_times(lambda: model.train_on_batch(*batch))
    print(f"{size} px, batch {settings.batch_size}, {processor()}; a step without the profiler: {seconds:.2f} s")
    print(f"TensorFlow {tf.__version__}, Keras {keras.__version__}; summed over threads\n")
    print("| operation | ms | calls |\n| --- | --- | --- |")
    for name, (ms, calls) in list(totals.items())[:16]:
        print(f"| {name} | {ms:.0f} | {calls} |")
    print(f"| all | {sum(ms for ms, _ in totals.values()):.0f} | {sum(calls for _, calls in totals.values())} |")
    peak = tensorflow_peak(lambda: model.train_on_batch(*batch)) / 2**30
    print(f"\nTensorFlow's allocator has given out {peak:.2f} GiB at most, and the process has {peak_gib():.2f}")
    return {"step_s": seconds, "operations": totals, "allocated_gib": peak}


def processor() -> str:
    with open("/proc/cpuinfo") as file:
        names = [line.split(":")[1].strip() for line in file if line.startswith("model name")]
    return f"{len(names)} cores {names[0]}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sides", nargs="+", default=list(SIDES), metavar="SIDE")
    parser.add_argument("--image_size", type=int, default=235)
    parser.add_argument("--batch_size", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--losses", type=int, help="compare the losses of so many steps instead of the times")
    parser.add_argument("--profile", action="store_true", help="where the time of one of our steps goes")
    parser.add_argument("--json", help="file for the numbers")
    settings = parser.parse_args()
    settings.weights = None
    run = profile if settings.profile else compare_losses if settings.losses else compare_steps
    results = run(settings)
    if settings.json:
        with open(settings.json, "w") as file:
            json.dump({"arguments": {**vars(settings), "weights": None}, **results}, file, indent=2)


if __name__ == "__main__":
    main()
