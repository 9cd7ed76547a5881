"""Exported models in the runtimes that they were exported for."""

import contextlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from polynet_keras.basics.extras import require_extra
from polynet_keras.deployment.artifact import ExportCard, artifact_path

REQUIRED = {"onnx": "onnxruntime", "openvino": "openvino", "litert": "ai_edge_litert"}
"""The runtimes that are an extra."""
MAX_REASON = 300
"""Characters of a runtime's own error that are repeated."""

Runner = Callable[[np.ndarray], np.ndarray]
"""From prepared images, float32 (batch, height, width, channels), to probabilities, float32 (batch, classes)."""


@dataclass(frozen=True)
class ExportedModel:
    """An exported model, loaded: call it with prepared images.

    Attributes:
        card: what it is.
        run: from prepared images, float32 (batch, image_size, image_size, channels), to probabilities, float32
            (batch, classes). Any number of threads may call it at once.
    """

    card: ExportCard
    run: Runner


def load_exported(folder: str | os.PathLike, threads: int | None = None) -> ExportedModel:
    """Loads what `polynet export` wrote, by the runtime of its format.

    An export is a program, and loading it may run it: load only what you exported or trust.

    Args:
        folder: with the card and the artifact.
        threads: that an inference uses at most; by default the runtime decides. LiteRT takes one by default, and
            TensorFlow can be told only before anything runs in it.

    Raises:
        ValueError: no such export, one that cannot be loaded, or its runtime is not installed.
    """
    card = ExportCard.load(folder)
    path = artifact_path(folder, card.format)
    if not path.is_file():
        raise ValueError(f"{path}: no such file, which the card beside it describes; export the model again")
    side, channels = card.preprocessing.image_size, card.preprocessing.channels
    run = load_artifact(path, card.format, threads)

    def checked(images: np.ndarray) -> np.ndarray:
        if images.dtype != np.float32 or images.ndim != 4 or images.shape[1:] != (side, side, channels):
            raise ValueError(
                f"images of {images.dtype} {images.shape} must be float32 (batch, {side}, {side}, {channels}), "
                "prepared by the card's preprocessing"
            )
        found = run(images)
        if found.shape != (len(images), len(card.class_names)):
            raise ValueError(
                f"{os.fspath(folder)}: the model gives the shape {found.shape} for {len(images)} images, its card "
                f"names {len(card.class_names)} classes; export it again"
            )
        return found

    return ExportedModel(card, checked)


def load_artifact(path: Path, format: str, threads: int | None = None) -> Runner:
    """Loads the artifact of a format; see `load_exported`."""
    load = {"saved_model": _saved_model, "onnx": _onnx, "openvino": _openvino, "litert": _litert, "torch": _torch}
    if format in REQUIRED:
        require_extra("deploy", REQUIRED[format])
    try:
        return load[format](path, threads)
    except Exception as error:  # each runtime has errors of its own for a file that is none of its format
        raise ValueError(f"{path}: cannot be loaded as {format}: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    """In one line; OpenVINO begins with the places in its source that an error came through."""
    lines = [line.strip() for line in str(error).splitlines()]
    said = [line for line in lines if line and not line.startswith("Exception from")]
    return " ".join(said)[:MAX_REASON] or type(error).__name__


def _saved_model(path: Path, threads: int | None) -> Runner:
    import tensorflow as tf

    if threads:
        with contextlib.suppress(RuntimeError):  # TensorFlow has begun already, with the threads that it has
            tf.config.threading.set_intra_op_parallelism_threads(threads)
    loaded = tf.saved_model.load(str(path.parent))

    def run(images: np.ndarray) -> np.ndarray:
        # Asked for each time: a signature does not keep the object alive that it is of.
        return loaded.signatures["serving_default"](image=tf.constant(images))["predictions"].numpy()

    return run


def _onnx(path: Path, threads: int | None) -> Runner:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or 0
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda images: session.run(None, {name: images})[0]


def _openvino(path: Path, threads: int | None) -> Runner:
    import openvino

    # Without the hint, processors that have bfloat16 would compute in it, and the card's comparison would not hold.
    settings: dict = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
    if threads:
        settings["INFERENCE_NUM_THREADS"] = threads
    compiled = openvino.Core().compile_model(str(path), "CPU", settings)
    # A request of its own for each call: a shared one takes one caller at a time.
    return lambda images: compiled.create_infer_request().infer({0: images})[compiled.output(0)].copy()


def _litert(path: Path, threads: int | None) -> Runner:
    from threading import Lock

    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(path), num_threads=threads)
    runner = interpreter.get_signature_runner("serving_default")
    (name,) = runner.get_input_details()
    lock = Lock()

    def run(images: np.ndarray) -> np.ndarray:
        with lock:  # an interpreter holds its tensors
            return next(iter(runner(**{name: images}).values()))

    return run


def _torch(path: Path, threads: int | None) -> Runner:
    import torch

    if threads:
        torch.set_num_threads(threads)
    # PyTorch would read the pickles in the file a second time, then with whatever they name and run, where they are not
    # of tensors alone. This switch of its own forbids that; it has no argument for it.
    with _environment("TORCH_FORCE_WEIGHTS_ONLY_LOAD", "1"):
        module = torch.export.load(path).module()

    def run(images: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return module(torch.from_numpy(images)).numpy()

    return run


@contextlib.contextmanager
def _environment(name: str, value: str) -> Iterator[None]:
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before
