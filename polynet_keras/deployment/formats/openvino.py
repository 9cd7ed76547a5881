"""OpenVINO, converted from a SavedModel; NNCF quantizes to int8."""

import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from polynet_keras.basics.keras_internals import every_layer
from polynet_keras.deployment.formats.format import Format, Runner, named, signature

if TYPE_CHECKING:
    import keras
    import numpy as np

    from polynet_keras.deployment.calibration import Calibration
    from polynet_keras.evaluation.loading import TrainedModel


def _write(
    path: Path, model: "keras.Model", trained: "TrainedModel", precision: str, calibration: "Calibration | None"
) -> Sequence[str]:
    import openvino

    given_back: Sequence[str] = ()
    with tempfile.TemporaryDirectory() as scratch:
        # Not with Keras's format "openvino", which hands OpenVINO a function: on Python 3.13 that is a NameError there.
        named(model).export(scratch, format="tf_saved_model", verbose=False, input_signature=signature(model))
        converted = openvino.convert_model(scratch)
        if calibration is not None:
            _name_by_layer(converted, model)
            converted, given_back = _quantized(converted, trained, calibration)
        # In float16 the weights take half of the space, and are computed with in float32.
        openvino.save_model(converted, path, compress_to_fp16=precision == "float16")
    return given_back


def _name_by_layer(converted: Any, model: "keras.Model") -> None:
    """Renames operations with a kernel in an `openvino.Model`, so that their names begin with their layer's name.

    The conversion renumbers convolutions. They are matched by the values of their kernels, in any order of the axes.
    """
    import keras

    names = {
        _digest(weight.numpy()): layer.name
        for layer in every_layer(model)
        if not isinstance(layer, keras.Model)
        for weight in layer.weights
        if weight.ndim > 1
    }
    taken = {operation.get_friendly_name() for operation in converted.get_ops()}
    for operation in _with_kernel(converted):
        layer = names.get(_digest(_kernel(operation).get_data()))
        name = f"{layer}/{operation.get_type_name()}"
        if layer is not None and name not in taken:  # a layer that is called twice has two operations
            operation.set_friendly_name(name)
            taken.add(name)


def _digest(kernel: "np.ndarray") -> tuple[int, int, int]:
    """Returns a digest of the kernel's numbers, independent of their order."""
    import numpy as np

    bits = np.ascontiguousarray(kernel, "float32").ravel().view("uint32").astype("uint64")
    return bits.size, int(bits.sum()), int((bits * bits).sum())


def _with_kernel(model: Any) -> list[Any]:
    """Returns the operations whose second input is a kernel in float."""
    inputs = ((operation, operation.inputs()) for operation in model.get_ops())
    kinds = ("Convolution", "GroupConvolution", "MatMul")
    return [
        operation
        for operation, found in inputs
        if operation.get_type_name() in kinds and len(found) == 2 and _kernel(operation).get_type_name() == "Constant"
    ]


def _kernel(operation: Any) -> Any:
    return operation.input(1).get_source_output().get_node()


def _quantized(model: Any, trained: "TrainedModel", calibration: "Calibration") -> tuple[Any, Sequence[str]]:
    """Quantizes an `openvino.Model` to int8 by NNCF's post-training quantization.

    Weights are symmetric for each channel, activations asymmetric (NNCF's preset "mixed").

    Returns:
        The int8 model, and the layers that went back to float.

    Raises:
        ValueError: no layer has a name of `keep_float`, or no int8 model satisfies `max_drop`.
    """
    import nncf

    layers = [operation.get_friendly_name() for operation in _with_kernel(model)]
    kept = calibration.kept(layers)
    batches = calibration.batches(trained.preprocessing)
    how = {
        "preset": nncf.QuantizationPreset.MIXED,
        "subset_size": len(batches),
        "ignored_scope": nncf.IgnoredScope(names=kept) if kept else None,
    }
    if calibration.max_drop is None:
        return nncf.quantize(model, nncf.Dataset(batches), **how), ()
    images = calibration.to_choose(trained)
    restored = nncf.quantize_with_accuracy_control(
        model,
        nncf.Dataset(batches),
        nncf.Dataset(images),
        _top1,
        max_drop=calibration.max_drop / 100,
        drop_type=nncf.DropType.ABSOLUTE,
        **how,
    )
    given_back = [layer for layer in _in_float(restored, layers) if layer not in kept]
    runs = (_compiled(one) for one in (model, restored))
    before, after = (_top1(run, images)[0] for run in runs)
    if before - after > calibration.max_drop / 100 or len(given_back) + len(kept) == len(layers):
        raise ValueError(
            f"max_drop={calibration.max_drop:g}: of the {len(images)} held-out images that it is measured on, int8 "
            f"loses more, whichever of the {len(layers)} layers go back to float; allow more, calibrate on more images "
            "like those it will see, or export in float16. Nothing was written"
        )
    return restored, [layer.rpartition("/")[0] or layer for layer in given_back]


def _in_float(model: Any, layers: Sequence[str]) -> list[str]:
    """Returns the layers whose kernels are in float."""
    in_float = {operation.get_friendly_name() for operation in _with_kernel(model)}
    return [layer for layer in layers if layer in in_float]


def _top1(run: Any, images: "Iterable[tuple[np.ndarray, np.ndarray]]") -> tuple[float, list[float]]:
    """Returns the share of images that a compiled model predicts correctly, and 1 or 0 for each, as NNCF requires."""
    right = [float(run(image)[0].argmax() == label[0]) for image, label in images]
    return sum(right) / len(right), right


def _compiled(model: Any, threads: int | None = None) -> Any:
    import openvino

    # Without the hint, CPUs that have bfloat16 would compute in it, and the card's comparison would not hold.
    settings: dict = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
    if threads:
        settings["INFERENCE_NUM_THREADS"] = threads
    return openvino.Core().compile_model(model, "CPU", settings)


def _load(path: Path, threads: int | None) -> Runner:
    compiled = _compiled(str(path), threads)
    # A request of its own for each call: a shared one takes one caller at a time.
    return lambda images: compiled.create_infer_request().infer({0: images})[compiled.output(0)].copy()


RUNTIME = ("openvino",)
PRECISIONS = {"float32": RUNTIME, "float16": RUNTIME, "int8": (*RUNTIME, "nncf")}
OPENVINO = Format("openvino", "model.xml", PRECISIONS, _write, _load, runtime=RUNTIME, gives_back=True)
