"""Exporting a trained model: fused, written for a runtime, and run there beside the original before anyone gets it."""

import os
import tempfile
from pathlib import Path

import keras
from absl import logging

from polynet_keras.basics.files import exchange
from polynet_keras.basics.holding import holding
from polynet_keras.data.protocol import Preprocessing
from polynet_keras.deployment.artifact import ExportCard, artifact_path, file_hashes, load_artifact
from polynet_keras.deployment.calibration import Calibration
from polynet_keras.deployment.checking import check_export, check_place
from polynet_keras.deployment.comparing import compare
from polynet_keras.deployment.formats.format import Format, version
from polynet_keras.deployment.fusing import fuse
from polynet_keras.engine.network import Network
from polynet_keras.evaluation.loading import TrainedModel, trained
from polynet_keras.evaluation.outputs import probability_model
from polynet_keras.version import __version__


def export(
    model: TrainedModel | str | os.PathLike,
    output: str | os.PathLike,
    format: str = "openvino",
    precision: str | None = None,
    calibration: Calibration | None = None,
    overwrite: bool = False,
) -> ExportCard:
    """Writes a trained model for a runtime, with a card, if it computes there what it did in Keras.

    The network is fused first (`fuse`), unless it is of another package and cannot be, written with Keras's own
    `Model.export`, loaded by the runtime of the format, and compared with the unfused model: on 20 crops of
    scikit-learn's two photographs, or in int8, whose ranges hold for what they were read from, on images that the
    calibration holds out, of which the card says how many each of the two gets right. The folder appears in the end,
    whole, or not at all. It has `card.json` and, in the folder `1`, the artifact, so that it is the base path that
    TensorFlow Serving and OpenVINO Model Server expect.

    Args:
        model: a name that `polynet_keras.load_model` takes, or what that returns, but no export. One that gives logits
            is exported with a softmax.
        output: folder to write, which is not there yet, or is to be overwritten.
        format: `"saved_model"`, `"onnx"`, `"openvino"` and `"litert"`, which Keras writes on the TensorFlow backend, or
            `"torch"` (`torch.export`), on the PyTorch backend.
        precision: `"float32"`, the default; `"float16"` (OpenVINO: of the weights); `"int8"` (OpenVINO, ONNX); or
            `"dynamic"` (LiteRT: weights in int8, activations quantized as they come).
        calibration: of int8, which needs one.
        overwrite: whether an export that is there is replaced, in one step, once the new one is whole. A folder that
            holds anything else, or an export whose files were changed, is never replaced.

    Raises:
        ValueError: a format or precision that is not accepted, a backend that does not write it, a missing extra, a
            folder that is there or that another process exports to, a model that cannot be fused, or an artifact that
            computes something else.
        OSError: another process has taken the folder meanwhile, since this one did not renew its lock in time.
    """
    chosen, precision = check_export(
        output, format, precision, calibration is not None, overwrite, calibration.max_drop if calibration else None
    )
    check_backend(chosen)
    packages = ("keras", chosen.backend, *chosen.precisions[precision])
    model = trained(model)
    network = model.network
    if network.dtype_policy.compute_dtype != "float32":
        raise ValueError(
            f"{model.name} computes in {network.dtype_policy.compute_dtype}; build it in float32 and load "
            "its weights, which are the same"
        )
    folder = Path(output)
    with (
        holding("output", folder, beside=True) as hold,
        tempfile.TemporaryDirectory(prefix=".polynet-", dir=folder.parent) as scratch,
    ):
        check_place(folder, overwrite)  # again: another export may just have ended
        written = _with_size(_fused(probability_model(network), isinstance(network, Network)), model.preprocessing)
        partial = Path(scratch, folder.name)
        path = artifact_path(partial, chosen.name)
        path.parent.mkdir(parents=True)
        given_back = chosen.write(path, written, model, precision, calibration) or ()
        comparison = compare(model, load_artifact(path, chosen.name), precision, calibration)
        chosen.check(path, model)
        card = ExportCard(
            format=chosen.name,
            precision=precision,
            name=model.name,
            class_names=model.class_names,
            preprocessing=model.preprocessing,
            source_hash=model.weights_hash,
            structure=model.structure,
            comparison=comparison,
            calibration=calibration.facts(given_back) if calibration else None,
            versions={"polynet_keras": __version__, **{name: version(name) for name in packages}},
            size=sum(file.stat().st_size for file in path.parent.rglob("*") if file.is_file()),
            files=file_hashes(partial),
        )
        card.save(partial)
        hold.check(folder)
        check_place(folder, overwrite)  # and what somebody put there while the model was written stays
        if os.path.lexists(folder):
            exchange(partial, folder)
        else:
            os.rename(partial, folder)
    return card


def check_backend(chosen: Format) -> None:
    """Raises a `ValueError` unless Keras, as it is set up here, writes a format."""
    backend, writer = keras.backend.backend(), chosen.backend
    if backend != writer:
        raise ValueError(
            f"Keras writes {chosen.name} on the {writer} backend; this is {backend}: set KERAS_BACKEND={writer}"
        )
    if keras.config.image_data_format() != "channels_last":
        raise ValueError("exported models take channels last; set keras.config.set_image_data_format('channels_last')")


def _fused(model: keras.Model, is_ours: bool) -> keras.Model:
    """The model fused, if it is of this package or fusing knows all of its layers."""
    try:
        return fuse(model)
    except ValueError as error:
        if is_ours:
            raise
        logging.info("exported without fusing: %s", error)
        return model


def _with_size(model: keras.Model, preprocessing: Preprocessing) -> keras.Model:
    """The model for images of the protocol's size, which one that was built for any size leaves open."""
    shape = (preprocessing.image_size, preprocessing.image_size, preprocessing.channels)
    if tuple(model.input_shape[1:]) == shape:
        return model
    image = keras.Input(shape, name="image")
    return keras.Model(image, model(image), name=model.name)
