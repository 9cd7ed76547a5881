"""LiteRT, written by TensorFlow's converter.

The converter calibrates for int8 too. Its result for the Fashion-MNIST checkpoint got 81 % of 2,000 test images right,
the original 93 %; therefore int8 is not offered.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from polynet_keras.deployment.formats.format import Format, Runner, named, signature

if TYPE_CHECKING:
    import keras

    from polynet_keras.evaluation.loading import TrainedModel


def _write(path: Path, model: "keras.Model", trained: "TrainedModel", precision: str, *_: object) -> None:
    import tensorflow as tf

    options = {"optimizations": [tf.lite.Optimize.DEFAULT]} if precision == "dynamic" else {}
    named(model).export(str(path), format="litert", verbose=False, input_signature=signature(model), **options)


def _load(path: Path, threads: int | None) -> Runner:
    from threading import Lock

    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(path), num_threads=threads)
    runner = interpreter.get_signature_runner("serving_default")
    (name,) = runner.get_input_details()
    lock = Lock()

    def run(images):
        with lock:  # an interpreter holds its tensors
            return next(iter(runner(**{name: images}).values()))

    return run


RUNTIME = ("ai_edge_litert",)
LITERT = Format(
    "litert",
    "model.tflite",
    {"float32": RUNTIME, "dynamic": RUNTIME},
    _write,
    _load,
    runtime=RUNTIME,
    alias="tflite",
)
