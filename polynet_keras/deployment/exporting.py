"""Exporting a trained model: fused, written for a runtime, and run there beside the original before anyone gets it."""

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

import keras
import numpy as np

from polynet_keras.basics.extras import require_extra
from polynet_keras.basics.holding import holding
from polynet_keras.data.crops import views
from polynet_keras.data.preprocessing import Preprocessing
from polynet_keras.deployment.artifact import (
    ARTIFACTS,
    PRECISIONS,
    Comparison,
    ExportCard,
    artifact_path,
    file_hashes,
)
from polynet_keras.deployment.fusing import fuse
from polynet_keras.deployment.quantization import Calibration, litert_options, quantize_openvino, written_openvino
from polynet_keras.deployment.requirements import check_versions, version
from polynet_keras.deployment.runtimes import Runner, load_artifact
from polynet_keras.evaluation.loading import TrainedModel
from polynet_keras.evaluation.results import weights_hash

CALIBRATED = "int8"

PACKAGES = {
    "saved_model": (),
    "onnx": ("tf2onnx", "onnx", "onnxruntime"),
    "openvino": ("openvino",),
    "litert": ("ai_edge_litert",),
    "torch": (),
}
"""What of the extra `deploy` each format needs."""

SMALLEST_PROBABILITY = 1e-6
"""Whose logarithm still counts."""
LARGEST_DIFFERENCE = {"float32": 1e-4, "float16": 1e-2}
"""Of a probability: what another order of sums, or weights of 11 bits, can make."""
CLEAR_MARGIN, SMALLEST_AGREEMENT = 0.3, 0.9
"""With int8 weights: of the images whose two best probabilities are that far apart, that share keeps the best class."""
LARGEST_MOVE, SMALLEST_CORRELATION = 0.3, 0.7
"""With int8 weights, however unsure the model is: the mean total variation distance of the probabilities,
and the correlation of what images change in their logarithms. Good exports of trained nets moved by 0.03 at most and
correlated by 0.98 or more, of random nets by 0.28 and 0.80; one that gives every image the same correlates by 0.
"""


def export(
    trained: TrainedModel,
    folder: str | os.PathLike,
    format: str,
    precision: str | None = None,
    calibration: Calibration | None = None,
) -> ExportCard:
    """Writes a trained model for a runtime, with a card, if it computes there what it did in Keras.

    The network is fused first (`fuse`), written with Keras's own `Model.export`, loaded by the runtime of
    the format, and compared with the unfused model: on 20 crops of scikit-learn's two photographs, or in int8, whose
    ranges hold for what they were read from, on up to 200 images of the same data, at most half of it, that it was not
    calibrated on. The folder appears in the end, whole, or not at all. It has `card.json` and, in the folder `1`, the
    artifact, so that it is the base path that TensorFlow Serving and OpenVINO Model Server expect.

    Args:
        trained: the model and its protocol.
        folder: to write, which is not there yet.
        format: `"saved_model"`, `"onnx"`, `"openvino"` and `"litert"`, which Keras writes on the TensorFlow backend, or
            `"torch"` (`torch.export`), on the PyTorch backend.
        precision: `"float32"`, the default; `"float16"` (OpenVINO: of the weights); `"int8"` (OpenVINO); or `"dynamic"`
            (LiteRT: weights in int8, activations quantized as they come).
        calibration: of int8, which needs one.

    Raises:
        ValueError: a format or precision that is not accepted, a backend that does not write it, a missing extra, a
            folder that is there or that another process exports to, a model that cannot be fused, or an artifact that
            computes something else.
    """
    precision = checked_precision(folder, format, precision, calibration is not None)
    if trained.model.dtype_policy.compute_dtype != "float32":
        raise ValueError(
            f"{trained.name} computes in {trained.model.dtype_policy.compute_dtype}; build it in float32 and load "
            "its weights, which are the same"
        )
    folder = Path(folder)
    with (
        holding("folder", folder, beside=True),
        tempfile.TemporaryDirectory(prefix=".polynet-", dir=folder.parent) as scratch,
    ):
        _check_is_new(folder)  # again: another export may just have ended
        model = _with_size(fuse(trained.model), trained.preprocessing)
        batches = calibration.batches(trained.preprocessing) if calibration else []
        partial = Path(scratch, folder.name)
        path = artifact_path(partial, format)
        path.parent.mkdir(parents=True)
        if format == "saved_model":
            from polynet_keras.deployment.saved_model import compare_classify, write_saved_model

            write_saved_model(path.parent, model, trained.preprocessing, trained.class_names)
        elif format == "openvino":
            _write_openvino(path, model, precision, batches, calibration)
        elif format == "litert":
            model.export(str(path), format="litert", verbose=False, **litert_options(precision))
        elif format == "torch":
            _write_torch(path, model)
        else:
            model.export(str(path), format=format, verbose=False, input_signature=_signature(model))
        comparison = compare(trained, load_artifact(path, format), precision, calibration)
        if format == "saved_model":
            compare_classify(path.parent, trained, LARGEST_DIFFERENCE[precision])
        card = ExportCard(
            format=format,
            precision=precision,
            name=trained.name,
            class_names=trained.class_names,
            preprocessing=trained.preprocessing,
            source_hash=weights_hash(trained.model),
            structure=trained.structure,
            comparison=comparison,
            calibration=calibration.facts() if calibration else None,
            versions=_versions(format, precision),
            size=sum(file.stat().st_size for file in path.parent.rglob("*") if file.is_file()),
            files=file_hashes(partial),
        )
        card.save(partial)
        os.rename(partial, folder)
    return card


def checked_precision(folder: str | os.PathLike, format: str, precision: str | None, calibrated: bool) -> str:
    """The precision of an export; raises a `ValueError` for what cannot be done, before weights are fetched for it."""
    named = os.fspath(folder)
    if format not in ARTIFACTS:
        raise ValueError(f"format={format!r} must be one of {', '.join(ARTIFACTS)}")
    precision = precision or PRECISIONS[format][0]
    if precision not in PRECISIONS[format]:
        raise ValueError(f"precision={precision!r} must be one of {', '.join(PRECISIONS[format])} for {format}")
    if precision == CALIBRATED and not calibrated:
        raise ValueError(f"precision={precision!r} needs calibration: the data whose images its ranges are read from")
    if calibrated and precision != CALIBRATED:
        raise ValueError(f"calibration is of precision={CALIBRATED!r} only; got precision={precision!r}")
    check_versions(format)
    backend, writer = keras.backend.backend(), "torch" if format == "torch" else "tensorflow"
    if backend != writer:
        raise ValueError(
            f"Keras writes {format} on the {writer} backend; this is {backend}: set KERAS_BACKEND={writer}"
        )
    if keras.config.image_data_format() != "channels_last":
        raise ValueError("exported models take channels last; set keras.config.set_image_data_format('channels_last')")
    require_extra("deploy", *PACKAGES[format], *(("nncf",) if precision == CALIBRATED else ()))
    require_extra("data", "PIL", "sklearn")
    folder = Path(folder)  # which leaves out a slash at the end
    if not folder.name:
        raise ValueError(f"folder={named!r} has no name of its own; name a new folder")
    _check_is_new(folder)
    if not folder.parent.is_dir() or not os.access(folder.parent, os.W_OK):
        raise ValueError(f"{named} is in no folder that exists and can be written; make it first")
    return precision


def _check_is_new(folder: Path) -> None:
    if os.path.lexists(folder):
        raise ValueError(f"{folder} is there already; name a new folder")


def _with_size(model: keras.Model, preprocessing: Preprocessing) -> keras.Model:
    """The model for images of the protocol's size, which one that was built for any size leaves open."""
    shape = (preprocessing.image_size, preprocessing.image_size, preprocessing.channels)
    if tuple(model.input_shape[1:]) == shape:
        return model
    image = keras.Input(shape, name="image")
    return keras.Model(image, model(image), name=model.name)


def _signature(model: keras.Model) -> list[keras.InputSpec]:
    """Of the float input; Keras finds it by itself only of a model that was called."""
    return [keras.InputSpec(dtype="float32", shape=model.input_shape, name="image")]


def _write_openvino(path: Path, model: keras.Model, precision: str, batches, calibration: Calibration | None) -> None:
    import openvino

    with tempfile.TemporaryDirectory() as scratch:
        # Not with Keras's format "openvino", which hands OpenVINO a function: on Python 3.13 that is a NameError there.
        model.export(scratch, format="tf_saved_model", verbose=False, input_signature=_signature(model))
        converted = openvino.convert_model(scratch)
        if calibration is not None:
            converted = quantize_openvino(converted, batches, calibration.keep_float)
        written_openvino(path, converted, precision)


def _write_torch(path: Path, model: keras.Model) -> None:
    import torch

    model.eval()
    model.export(str(path), format="torch", verbose=False, dynamic_shapes={0: torch.export.Dim("batch", min=1)})


def compare(trained: TrainedModel, run: Runner, precision: str, calibration: Calibration | None = None) -> Comparison:
    """Runs an artifact beside the model that it came from.

    Raises:
        ValueError: they differ by more than their precision explains.
    """
    if calibration is None:
        data, images = "crops of photographs", photographs(trained.preprocessing)
    else:
        data, images = calibration.examples.name, calibration.others(trained.preprocessing)
    expected = np.asarray(trained.model.predict_on_batch(images))
    if expected.min() < 0 or np.abs(expected.sum(axis=1) - 1).max() > 1e-3:
        raise ValueError(f"{trained.name} gives no probabilities; an exported model ends in a softmax")
    # One by one and together: a batch must not change what an image gets.
    found = np.concatenate([run(images[:1]), run(images[1:])])
    if found.shape != expected.shape or not np.isfinite(found).all():
        raise ValueError(f"the exported model gives {found.shape}, not finite or not of the shape {expected.shape}")
    difference = float(np.abs(found - expected).max())
    same = found.argmax(axis=1) == expected.argmax(axis=1)
    comparison = Comparison(data, len(images), difference, float(same.mean()))
    if precision in LARGEST_DIFFERENCE:
        if difference > LARGEST_DIFFERENCE[precision]:
            raise ValueError(
                f"the exported model's probabilities differ by {difference:.2g} from Keras's on {len(images)} "
                f"{data}; {precision} explains {LARGEST_DIFFERENCE[precision]:g}. Nothing was written"
            )
        return comparison
    second, best = np.sort(expected, axis=1)[:, -2:].T
    clear = best - second >= CLEAR_MARGIN
    if clear.any() and same[clear].mean() < SMALLEST_AGREEMENT:
        raise ValueError(
            f"the exported model names the same class for {same[clear].sum()} of the {clear.sum()} images of {data} "
            f"that Keras is sure of; {precision} must keep {SMALLEST_AGREEMENT:.0%}. Calibrate it on more images like "
            "those it will see, or keep layers in float. Nothing was written"
        )
    moved, correlation = float(np.abs(found - expected).sum(axis=1).mean() / 2), _correlation(found, expected)
    if moved > LARGEST_MOVE or correlation < SMALLEST_CORRELATION:
        raise ValueError(
            f"the exported model moves {moved:.2f} of an image's probability, the mean of {len(images)} of {data}, and "
            f"what images change in it correlates with Keras's by {correlation:.2f}; {precision} may move "
            f"{LARGEST_MOVE:g} and must correlate by {SMALLEST_CORRELATION:g}. Nothing was written"
        )
    return comparison


def _correlation(found: np.ndarray, expected: np.ndarray) -> float:
    """Of the log-probabilities less each image's mean and each class's: of the logits, as far as images differ."""

    def changes(probabilities: np.ndarray) -> np.ndarray:
        logs = np.log(np.maximum(probabilities, SMALLEST_PROBABILITY))
        logs -= logs.mean(axis=1, keepdims=True)
        return logs - logs.mean(axis=0)

    x, y = changes(found), changes(expected)
    norms = np.linalg.norm(x) * np.linalg.norm(y)
    return float((x * y).sum() / norms) if norms else 0.0


def photographs(preprocessing: Preprocessing) -> np.ndarray:
    """10 crops of each of scikit-learn's two photographs, prepared: float32 (20, image_size, image_size, channels)."""
    from PIL import Image
    from sklearn.datasets import load_sample_images

    crops = []
    for photograph in load_sample_images().images:
        image = Image.fromarray(photograph).convert({1: "L", 3: "RGB", 4: "RGBA"}[preprocessing.channels])
        pixels = np.asarray(image).reshape(*photograph.shape[:2], preprocessing.channels)
        crops.append(preprocessing.normalize(views(pixels, preprocessing, 10)))
    return np.concatenate(crops).astype("float32")


def _versions(format: str, precision: str) -> dict[str, str]:
    """Of the packages that write a format."""
    from polynet_keras.version import __version__

    names: Sequence[str] = ("keras", "torch" if format == "torch" else "tensorflow", *PACKAGES[format])
    if precision == CALIBRATED:
        names = (*names, "nncf")
    return {"polynet_keras": __version__, **{name: version(name) for name in names}}
