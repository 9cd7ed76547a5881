"""OpenVINO: converted from a SavedModel; in int8 quantized by NNCF."""

import re
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from polynet_keras.deployment.formats.format import Format, Runner, signature
from polynet_keras.evaluation.loading import TrainedModel

if TYPE_CHECKING:
    from polynet_keras.deployment.calibration import Calibration


def _write(
    path: Path, model: keras.Model, trained: TrainedModel, precision: str, calibration: "Calibration | None"
) -> None:
    import openvino

    batches = calibration.batches(trained.preprocessing) if calibration else []
    with tempfile.TemporaryDirectory() as scratch:
        # Not with Keras's format "openvino", which hands OpenVINO a function: on Python 3.13 that is a NameError there.
        model.export(scratch, format="tf_saved_model", verbose=False, input_signature=signature(model))
        converted = openvino.convert_model(scratch)
        if calibration is not None:
            converted = _quantized(converted, batches, calibration.keep_float)
        # In float16 the weights take half of the space, and are computed with in float32.
        openvino.save_model(converted, path, compress_to_fp16=precision == "float16")


def _quantized(model: Any, batches: Sequence[np.ndarray], keep_float: Sequence[str]) -> Any:
    """The int8 model of an `openvino.Model`, by NNCF's post-training quantization.

    Weights are symmetric for each channel, activations asymmetric (NNCF's preset "mixed").

    Raises:
        ValueError: a name of `keep_float` that no operation has.
    """
    import nncf

    names = [operation.get_friendly_name() for operation in model.get_ops()]
    patterns = [rf".*\b{re.escape(name)}.*" for name in keep_float]
    for name, pattern in zip(keep_float, patterns, strict=True):
        if not any(re.fullmatch(pattern, operation) for operation in names):
            raise ValueError(f"keep_float={name!r} is the beginning of no layer's name in the fused network")
    scope = nncf.IgnoredScope(patterns=patterns) if patterns else None
    return nncf.quantize(
        model,
        nncf.Dataset(batches),
        preset=nncf.QuantizationPreset.MIXED,
        subset_size=len(batches),
        ignored_scope=scope,
    )


def _load(path: Path, threads: int | None) -> Runner:
    import openvino

    # Without the hint, processors that have bfloat16 would compute in it, and the card's comparison would not hold.
    settings: dict = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
    if threads:
        settings["INFERENCE_NUM_THREADS"] = threads
    compiled = openvino.Core().compile_model(str(path), "CPU", settings)
    # A request of its own for each call: a shared one takes one caller at a time.
    return lambda images: compiled.create_infer_request().infer({0: images})[compiled.output(0)].copy()


RUNTIME = ("openvino",)
PRECISIONS = {"float32": RUNTIME, "float16": RUNTIME, "int8": (*RUNTIME, "nncf")}
OPENVINO = Format("openvino", "model.xml", PRECISIONS, _write, _load, runtime=RUNTIME)
