"""ONNX: written by Keras with tf2onnx, run by ONNX Runtime."""

from pathlib import Path

import keras

from polynet_keras.deployment.formats.format import Format, Runner, signature


def _write(path: Path, model: keras.Model, *_: object) -> None:
    model.export(str(path), format="onnx", verbose=False, input_signature=signature(model))


def _load(path: Path, threads: int | None) -> Runner:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or 0
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda images: session.run(None, {name: images})[0]


ONNX = Format(
    "onnx", "model.onnx", {"float32": ("tf2onnx", "onnx", "onnxruntime")}, _write, _load, runtime=("onnxruntime",)
)
