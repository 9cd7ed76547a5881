"""The networks that `benchmarks/gpu.py` times: each in a process of its own, on one device, with the same weights.

A process says how long it took to import and build, and that it is ready. Then it answers requests `(batch, count)`:
it runs `count` steps (or passes) of `batch` images that are on the device already, waits for the device, and tells the
seconds of a step and the peak of its memory so far. The first request of a batch compiles. A failure is an answer too.
"""

import contextlib
import importlib.util
import math
import os
import tempfile
import time
import traceback
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from inference_sides import G5, plain
from side_process import SideProcess
from training import EPSILON, LOSSES_RATE, RHO, SCALE, batch_of, peak_gib

SMALL = "1 x [2-way] | 1 x [poly-3, 2-way] | 1 x [poly-3, 2-way]"
UNITS = {G5: (10, 11, 6), SMALL: (1, 2, 2)}
"""How many units pytorchcv counts in each stage of a structure: the reduction is the first one of B and C."""
COMPARED = 8
"""Images whose logits are compared."""
NO_MEMORY = "out of memory"
ENDED = "its process ended"
OPEN = "no time left"
"""Failures that are not a framework's own words. The last one is not final: `--resume` tries again."""
OUT_OF_MEMORY = ("RESOURCE_EXHAUSTED", "out of memory", "OutOfMemory", "OOM when", "ALLOC_FAILED", "failed to allocate")
"""What JAX, PyTorch, TensorFlow and cuBLAS say."""


@dataclass(frozen=True)
class Cell:
    """What all sides compute in turn.

    Attributes:
        task: `"training"` or `"inference"`.
        structure: one of `UNITS`.
        image_size: px.
        dtype: `"float32"` (products in TF32 where the device has it) or `"bfloat16"` (Keras's `mixed_bfloat16`,
            PyTorch's autocast).
        batches: images of a step; none if the largest one is sought.
        steps: of a timed block of training.
    """

    task: str
    structure: str
    image_size: int
    dtype: str
    batches: tuple[int, ...] = ()
    steps: int = 10


# Weights and memory


def values_of(layer: str, shapes: list[tuple[int, ...]]) -> list[np.ndarray]:
    """Returns the weights of a layer, drawn by its name: a kernel and perhaps a bias, or a normalization's four.

    Values keep about their size from layer to layer, so that no dtype hides what the others compute.
    """
    rng = np.random.default_rng(zlib.crc32(layer.encode()))
    if len(shapes) == 4:
        (shape,) = set(shapes)
        gamma, beta = rng.uniform(0.5, 1.5, shape), rng.normal(0, 0.2, shape)
        return [gamma, beta, rng.normal(0, 0.1, shape), rng.uniform(0.8, 1.25, shape)]
    kernel = rng.standard_normal(shapes[0], dtype="float32") * math.sqrt(2 / math.prod(shapes[0][:-1]))
    return [kernel, *map(np.zeros, shapes[1:])]


def set_weights(model) -> None:
    import keras

    for layer in model.layers:
        if isinstance(layer, (keras.layers.Conv2D, keras.layers.Dense, keras.layers.BatchNormalization)):
            layer.set_weights(values_of(layer.name, [tuple(variable.shape) for variable in layer.weights]))


def peer(cell: Cell):
    """pytorchcv's network with these weights, by the table that the tests prove."""
    import torch
    from pytorchcv.models.polynet import PolyNet

    from polynet_keras.pretrained.name_maps import pytorchcv

    scales = [[SCALE] * units for units in UNITS[cell.structure]]
    # Units of stage A have no polynomial.
    net = PolyNet(
        scales, [[0.0] * len(scales[0]), *scales[1:]], dropout_rate=0.0, in_size=(cell.image_size, cell.image_size)
    )
    net.features.final_pool = torch.nn.AdaptiveAvgPool2d(1)
    state = net.state_dict()
    for source, layer in pytorchcv().items():
        names = [f"{source}.{name}" for name in ("weight", "bias", "running_mean", "running_var")]
        tensors = [state[name] for name in names if name in state]
        shapes = [(*tensor.shape[2:], *tensor.shape[1::-1]) if tensor.ndim > 1 else tensor.shape for tensor in tensors]
        if tensors:  # a short structure lacks most units
            for tensor, value in zip(tensors, values_of(layer, list(map(tuple, shapes))), strict=True):
                value = value.transpose(3, 2, 0, 1) if value.ndim == 4 else value.T
                tensor.copy_(torch.from_numpy(np.ascontiguousarray(value)))
    return net


def failure(error: BaseException) -> str:
    """The first line of an error, or what kind of failure it is."""
    text = f"{type(error).__name__}: {error}"
    if any(part.lower() in text.lower() for part in OUT_OF_MEMORY):
        return NO_MEMORY
    place = traceback.extract_tb(error.__traceback__)[-1:]
    return text.strip().splitlines()[0][:300] + "".join(f" ({Path(one.filename).name}:{one.lineno})" for one in place)


# What a process and `benchmarks/gpu.py` say to each other


class Turns:
    def __init__(self, connection):
        self._connection = connection
        self._phases: dict[str, float] = {}
        self._since = time.perf_counter()

    def phase(self, name: str) -> None:
        """Ends a part of the start."""
        now = time.perf_counter()
        self._phases[name], self._since = now - self._since, now

    def ready(self, device: str, name: str) -> None:
        """Tells `"gpu"` or `"cpu"`, and what the framework calls it."""
        self._connection.send({"device": device, "device_name": name, **self._phases})

    def next(self) -> tuple[int, int]:
        return self._connection.recv()

    def done(self, seconds: float, peak: float, **facts) -> None:
        self._connection.send({"seconds": seconds, "peak_gib": peak, **facts})

    def failed(self, error: BaseException) -> None:
        self._connection.send({"failed": failure(error)})

    def run(self, step_of: Callable, wait: Callable[..., dict], peak: Callable[[], float]) -> None:
        """Answers requests, until it is ended.

        Args:
            step_of: returns the step of a batch, a function of nothing.
            wait: waits for the device; it takes what the last step returned, and returns what is told of it.
            peak: returns the peak of memory in GiB.
        """
        steps: dict[int, Callable] = {}
        while True:
            batch, count = self.next()
            try:
                if batch not in steps:
                    steps[batch] = step_of(batch)
                start = time.perf_counter()
                for _ in range(count):
                    result = steps[batch]()
                facts = wait(result)
                seconds = (time.perf_counter() - start) / count
            except Exception as error:  # the next batch may work
                steps.pop(batch, None)
                self.failed(error)
            else:
                self.done(seconds, peak(), **facts)


# The sides


def keras_side(name: str, options: dict, cell: Cell, turns: Turns) -> None:
    """`polynet_keras`, `fused` or `keras`."""
    os.environ["KERAS_BACKEND"] = options.get("backend", "jax")
    import keras

    from polynet_keras import PolyNet

    framework = (JAX if keras.backend.backend() == "jax" else TensorFlow)()
    turns.phase("import_s")
    if cell.dtype == "bfloat16":
        keras.config.set_dtype_policy("mixed_bfloat16")
    size = cell.image_size
    model = PolyNet(
        weights=None,
        input_shape=(size, size, 3),
        structure=cell.structure,
        residual_scale=SCALE,
        classifier_activation=None,
    )
    if name == "keras":
        model = plain(model)
    set_weights(model)
    if name == "fused":
        from polynet_keras.deployment.fusing import fuse

        model = fuse(model)
    turns.phase("build_s")
    turns.ready(framework.device, framework.name)
    if cell.task == "inference":
        step_of = framework.inference(model, cell)
        turns.run(step_of, lambda logits: {"output": np.array(logits[:COMPARED], "float32")}, framework.peak)
    else:
        fit(model, name == "keras", framework, cell, turns)


def fit(model, is_plain: bool, framework, cell: Cell, turns: Turns) -> None:
    """`compile` and `fit` as users write them. One epoch is a request; between two, a callback waits for the next."""
    import keras

    from polynet_keras.training.optimizers import RMSprop

    class Blocks(keras.callbacks.Callback):
        # Without a method for batches, Keras sends the steps on without waiting for their results.
        def on_epoch_begin(self, epoch, logs=None):
            turns.next()
            self.start = time.perf_counter()

        def on_epoch_end(self, epoch, logs=None):
            framework.wait(model)
            seconds = (time.perf_counter() - self.start) / self.params["steps"]
            turns.done(seconds, framework.peak(), loss=float(logs["loss"]))

    optimizer = (keras.optimizers.RMSprop if is_plain else RMSprop)(LOSSES_RATE, RHO, epsilon=EPSILON)
    model.compile(optimizer, keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    batch, _ = turns.next()
    data = framework.data(*batch_of(0, batch, cell.image_size))
    start = time.perf_counter()
    first = model.fit(data(), steps_per_epoch=1, shuffle=False, verbose=0)
    framework.wait(model)
    turns.done(time.perf_counter() - start, framework.peak(), loss=first.history["loss"][0])
    # It ends with the process.
    model.fit(data(), steps_per_epoch=cell.steps, epochs=10**6, callbacks=[Blocks()], shuffle=False, verbose=0)


class JAX:
    def __init__(self):
        import jax

        # The default of a device that has TF32; said here, since a variable of the environment may say otherwise.
        jax.config.update("jax_default_matmul_precision", "tensorfloat32")
        self.device, self.name = jax.default_backend(), jax.local_devices()[0].device_kind

    def wait(self, model) -> None:
        import jax

        jax.block_until_ready([variable.value for variable in model.trainable_variables])

    def peak(self) -> float:
        import jax

        stats = jax.local_devices()[0].memory_stats()  # None on a processor
        return stats["peak_bytes_in_use"] / 2**30 if stats else peak_gib()

    def inference(self, model, cell: Cell) -> Callable:
        import jax

        state = [[v.value for v in vs] for vs in (model.trainable_variables, model.non_trainable_variables)]
        # Weights are arguments: constants would be copied into the program, and folded for minutes.
        apply = jax.jit(lambda state, images: model.stateless_call(*state, images, training=False)[0])

        def step_of(batch: int) -> Callable:
            images = jax.device_put(batch_of(0, batch, cell.image_size)[0])
            return lambda: apply(state, images)

        return step_of

    def data(self, images: np.ndarray, labels: np.ndarray) -> Callable:
        import jax

        batch = jax.device_put((images, labels.astype("int32")))

        def forever():
            while True:
                yield batch

        return forever


class TensorFlow:
    def __init__(self):
        import tensorflow as tf

        gpus = tf.config.list_physical_devices("GPU")
        self.device = "gpu" if gpus else "cpu"
        self.name = tf.config.experimental.get_device_details(gpus[0]).get("device_name", "GPU") if gpus else "cpu"

    def wait(self, model) -> None:
        model.trainable_variables[-1].numpy()

    def peak(self) -> float:
        import tensorflow as tf

        if self.device == "cpu":
            return peak_gib()
        return tf.config.experimental.get_memory_info("GPU:0")["peak"] / 2**30

    def inference(self, model, cell: Cell) -> Callable:
        import tensorflow as tf

        apply = tf.function(lambda images: model(images, training=False), jit_compile=self.device == "gpu")

        def step_of(batch: int) -> Callable:
            images = tf.constant(batch_of(0, batch, cell.image_size)[0])
            return lambda: apply(images)

        return step_of

    def data(self, images: np.ndarray, labels: np.ndarray) -> Callable:
        import tensorflow as tf

        # tf.data's tensors are in the host's memory: the copy to the device is part of this side's step.
        return lambda: tf.data.Dataset.from_tensors((images, labels)).repeat().prefetch(2)


def kind_of(device: str) -> tuple[str, str]:
    import torch

    return ("gpu", torch.cuda.get_device_name()) if device == "cuda" else ("cpu", "cpu")


def pytorchcv_side(name: str, options: dict, cell: Cell, turns: Turns) -> None:
    import torch

    device = "cpu" if options.get("device") == "cpu" or not torch.cuda.is_available() else "cuda"
    torch.set_float32_matmul_precision("high")  # TF32; convolutions have it by default
    torch.backends.cudnn.benchmark = True
    turns.phase("import_s")
    net = peer(cell).to(device, memory_format=torch.channels_last).train(cell.task == "training")
    if options.get("compile"):
        net = torch.compile(net, mode="max-autotune", dynamic=False)
    optimizer = torch.optim.RMSprop(net.parameters(), lr=LOSSES_RATE, alpha=RHO, eps=EPSILON)
    autocast = torch.autocast(device, torch.bfloat16, enabled=cell.dtype == "bfloat16")
    turns.phase("build_s")
    turns.ready(*kind_of(device))

    def wait(result) -> dict:
        if device == "cuda":
            torch.cuda.synchronize()
        if cell.task == "training":
            return {"loss": result.item()}
        return {"output": result[:COMPARED].float().cpu().numpy()}

    def step_of(batch: int) -> Callable:
        images, labels = (torch.from_numpy(one) for one in batch_of(0, batch, cell.image_size))
        x = images.permute(0, 3, 1, 2).to(device)  # channels_last as it is
        y = labels.to(device)

        def infer():
            with torch.inference_mode(), autocast:
                return net(x)

        def train():
            optimizer.zero_grad(set_to_none=True)
            with autocast:
                loss = torch.nn.functional.cross_entropy(net(x), y)
            loss.backward()
            optimizer.step()
            return loss.detach()

        return train if cell.task == "training" else infer

    turns.run(step_of, wait, lambda: torch.cuda.max_memory_allocated() / 2**30 if device == "cuda" else peak_gib())


def machine_side(name: str, options: dict, cell: Cell, turns: Turns) -> None:
    """The product of two large matrices in the cell's dtype and a copy that no cache holds, by PyTorch."""
    import torch

    on_gpu = torch.cuda.is_available()
    device = "cuda" if on_gpu else "cpu"
    torch.set_float32_matmul_precision("high")
    turns.phase("import_s")
    rows, numbers = (8192, 2**28) if on_gpu else (512, 2**22)
    a, b = torch.randn(2, rows, rows, device=device, dtype=getattr(torch, cell.dtype))
    product = torch.empty_like(a)
    source, target = torch.ones(numbers, device=device), torch.empty(numbers, device=device)
    turns.phase("build_s")
    turns.ready(*kind_of(device))

    def seconds(run: Callable[[], object], count: int = 10) -> float:
        for repeats in (2, count):  # the first ones warm up
            start = time.perf_counter()
            for _ in range(repeats):
                run()
            if on_gpu:
                torch.cuda.synchronize()
        return (time.perf_counter() - start) / count

    def rates() -> dict:
        return {
            "matmul_tflops": 2 * rows**3 / seconds(lambda: torch.mm(a, b, out=product)) / 1e12,
            "copy_gbs": 8 * numbers / seconds(lambda: target.copy_(source)) / 1e9,
        }

    turns.run(lambda batch: rates, lambda found: {"rates": found}, lambda: 0.0)


SIDES: dict[str, Callable] = {
    "polynet_keras": keras_side,
    "fused": keras_side,
    "keras": keras_side,
    "pytorchcv": pytorchcv_side,
    "machine": machine_side,
}


# Processes


def split(text: str) -> tuple[str, dict[str, str]]:
    name, *options = text.split(",")
    if name not in SIDES:
        raise SystemExit(f"--sides: {name!r} is not one of {', '.join(SIDES)}")
    return name, dict(option.split("=") for option in options)


def missing_packages(text: str) -> list[str]:
    """What a side needs and this Python does not have; nothing is imported for the answer."""
    name, options = split(text)
    needed = {"pytorchcv": ["torch", "pytorchcv"], "machine": ["torch"]}.get(name)
    if needed is None:
        needed = ["keras", options.get("backend", "jax")]
    return [package for package in needed if importlib.util.find_spec(package) is None]


def serve(connection, text: str, cell: Cell, alone: bool, scratch: str) -> None:
    """A side's process; `scratch` is an empty folder."""
    turns = Turns(connection)
    name, options = split(text)
    # What an earlier run has compiled would hide the time to the first step.
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = scratch
    if cell.structure != SMALL:
        os.environ.pop("JAX_COMPILATION_CACHE_DIR", None)
    # All sides share the device: none may take most of its memory at its start. A side alone may.
    os.environ |= {"TF_FORCE_GPU_ALLOW_GROWTH": "true", "TF_CPP_MIN_LOG_LEVEL": "3"}
    os.environ |= {"XLA_PYTHON_CLIENT_MEM_FRACTION": "0.95"} if alone else {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
    try:
        SIDES[name](name, options, cell, turns)
    except Exception as error:
        turns.failed(error)


class Side(SideProcess):
    def __init__(self, text: str, cell: Cell, alone: bool = False):
        self._scratch = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)  # its processes may still write
        super().__init__(text, serve, text, cell, alone, self._scratch.name)

    def run(self, batch: int, count: int, seconds: float) -> dict:
        """Returns the answer; what takes longer than `seconds`, and a process that dies, are failures too."""
        with contextlib.suppress(OSError):  # it may have died, as the answer will say
            self.ask((batch, count))
        return self.wait(seconds)

    def wait(self, seconds: float) -> dict:
        try:
            return self.answer(max(seconds, 0))
        except TimeoutError:
            return {"failed": OPEN}
        except (EOFError, ConnectionError):
            self.process.join()
            return {"failed": f"{ENDED} with {self.process.exitcode}"}

    def stop(self) -> None:
        self.process.kill()  # a framework in the middle of a compilation does not hear SIGTERM
        self.process.join()
        self.connection.close()
        self._scratch.cleanup()
