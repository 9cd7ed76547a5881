"""Exporting a trained model: fused, written for a runtime, and run there beside the original before anyone gets it."""

import os
import tempfile
from pathlib import Path

import keras

from polynet_keras.basics.extras import require_extra
from polynet_keras.basics.holding import holding
from polynet_keras.data.protocol import Preprocessing
from polynet_keras.deployment.artifact import ExportCard, artifact_path, file_hashes, load_artifact
from polynet_keras.deployment.calibration import Calibration
from polynet_keras.deployment.comparing import compare
from polynet_keras.deployment.formats import FORMATS
from polynet_keras.deployment.formats.format import version
from polynet_keras.deployment.fusing import fuse
from polynet_keras.evaluation.loading import TrainedModel
from polynet_keras.evaluation.results import weights_hash
from polynet_keras.version import __version__

CALIBRATED = "int8"


def export(
    trained: TrainedModel,
    folder: str | os.PathLike,
    format: str,
    precision: str | None = None,
    calibration: Calibration | None = None,
) -> ExportCard:
    """Writes a trained model for a runtime, with a card, if it computes there what it did in Keras.

    The network is fused first (`fuse`), written with Keras's own `Model.export`, loaded by the runtime of the format,
    and compared with the unfused model: on 20 crops of scikit-learn's two photographs, or in int8, whose ranges hold
    for what they were read from, on up to 200 images of the same data, at most half of it, that it was not calibrated
    on. The folder appears in the end, whole, or not at all. It has `card.json` and, in the folder `1`, the
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
    chosen = FORMATS[format]
    packages = ("keras", chosen.backend, *chosen.precisions[precision])
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
        partial = Path(scratch, folder.name)
        path = artifact_path(partial, format)
        path.parent.mkdir(parents=True)
        chosen.write(path, model, trained, precision, calibration)
        comparison = compare(trained, load_artifact(path, format), precision, calibration)
        chosen.check(path, trained)
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
            versions={"polynet_keras": __version__, **{name: version(name) for name in packages}},
            size=sum(file.stat().st_size for file in path.parent.rglob("*") if file.is_file()),
            files=file_hashes(partial),
        )
        card.save(partial)
        os.rename(partial, folder)
    return card


def checked_precision(folder: str | os.PathLike, format: str, precision: str | None, calibrated: bool) -> str:
    """The precision of an export; raises a `ValueError` for what cannot be done, before weights are fetched for it."""
    named = os.fspath(folder)
    if format not in FORMATS:
        raise ValueError(f"format={format!r} must be one of {', '.join(FORMATS)}")
    chosen = FORMATS[format]
    precision = precision or next(iter(chosen.precisions))
    if precision not in chosen.precisions:
        raise ValueError(f"precision={precision!r} must be one of {', '.join(chosen.precisions)} for {format}")
    if precision == CALIBRATED and not calibrated:
        raise ValueError(f"precision={precision!r} needs calibration: the data whose images its ranges are read from")
    if calibrated and precision != CALIBRATED:
        raise ValueError(f"calibration is of precision={CALIBRATED!r} only; got precision={precision!r}")
    chosen.check_versions()
    backend, writer = keras.backend.backend(), chosen.backend
    if backend != writer:
        raise ValueError(
            f"Keras writes {format} on the {writer} backend; this is {backend}: set KERAS_BACKEND={writer}"
        )
    if keras.config.image_data_format() != "channels_last":
        raise ValueError("exported models take channels last; set keras.config.set_image_data_format('channels_last')")
    require_extra("deploy", *chosen.precisions[precision])
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
