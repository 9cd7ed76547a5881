"""ONNX, written by Keras with tf2onnx; ONNX Runtime quantizes to int8, and runs all precisions."""

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from polynet_keras.deployment.formats.format import Format, Runner, named, signature

if TYPE_CHECKING:
    import keras

    from polynet_keras.deployment.calibration import Calibration
    from polynet_keras.evaluation.loading import TrainedModel


def _write(
    path: Path, model: "keras.Model", trained: "TrainedModel", precision: str, calibration: "Calibration | None"
) -> None:
    def export(file: Path) -> None:
        named(model).export(str(file), format="onnx", verbose=False, input_signature=signature(model))

    if calibration is None:
        export(path)
        return
    with tempfile.TemporaryDirectory() as scratch:
        exported = Path(scratch, "float.onnx")
        export(exported)
        _quantize(exported, path, trained, calibration)


def _quantize(source: Path, target: Path, trained: "TrainedModel", calibration: "Calibration") -> None:
    """Quantizes a float model to int8 with ONNX Runtime's static quantizer, and writes it in the format QDQ.

    Weights are symmetric for each channel, activations asymmetric. The range of an activation is the mean of its
    ranges in the images: with the widest range, the Fashion-MNIST checkpoint lost 15 points of top-1, with the mean
    none. Weights have 7 bits (the quantizer's `reduce_range`): with 8 bits, sums of products saturate in ONNX Runtime
    on processors with AVX2 or AVX-512 and without VNNI, and the checkpoint lost 2.8 points.

    Raises:
        ValueError: no operation has a name of `keep_float`.
    """
    import onnx
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    prepared = source.with_name("prepared.onnx")
    # Fuses as ONNX Runtime does when it loads the model: only the remaining operations must be quantized.
    quant_pre_process(str(source), str(prepared), skip_symbolic_shape=True)
    graph = onnx.load(prepared).graph
    kept = calibration.kept([node.name for node in graph.node])

    class Images(CalibrationDataReader):
        def __init__(self, batches: Any):
            self._batches = iter(batches)

        def get_next(self) -> Any:
            images = next(self._batches, None)
            return None if images is None else {graph.input[0].name: images}

    quantize_static(
        str(prepared),
        str(target),
        Images(calibration.batches(trained.preprocessing)),
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        reduce_range=True,
        nodes_to_exclude=kept,
        extra_options={"CalibMovingAverage": True},
    )


def _load(path: Path, threads: int | None) -> Runner:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or 0
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda images: session.run(None, {name: images})[0]


PACKAGES = ("tf2onnx", "onnx", "onnxruntime")
ONNX = Format("onnx", "model.onnx", {"float32": PACKAGES, "int8": PACKAGES}, _write, _load, runtime=("onnxruntime",))
