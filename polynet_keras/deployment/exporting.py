"""Export of a trained model: fused, written for a runtime, and compared there with the original."""

import os
import tempfile
from pathlib import Path

import keras

from polynet_keras.basics.files import exchange
from polynet_keras.basics.holding import holding
from polynet_keras.basics.news import tell
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
    """Writes a trained model for a runtime, with a card, if the runtime computes the same as Keras.

    The network is fused first (`fuse`), unless it is another package's and cannot be fused. Keras's own `Model.export`
    writes it, the runtime of the format loads it, and the result is compared with the unfused model: on 20 crops of
    scikit-learn's two photographs. An int8 export is compared on held-out images of the calibration, because its ranges
    hold only for such images; the card has both models' correct predictions. The folder appears only when it is
    complete. It has `card.json` and, in the folder `1`, the artifact, so that it is the base path that TensorFlow
    Serving and OpenVINO Model Server expect.

    Args:
        model: a name for `polynet_keras.load_model`, or the model that it returned, but not an export. A model that
            outputs logits is exported with a softmax.
        output: folder to write; it must not exist, unless it is to be overwritten.
        format: `"saved_model"`, `"onnx"`, `"openvino"` and `"litert"`, which Keras writes on the TensorFlow backend, or
            `"torch"` (`torch.export`), on the PyTorch backend.
        precision: `"float32"`, the default; `"float16"` (OpenVINO: of the weights); `"int8"` (OpenVINO, ONNX); or
            `"dynamic"` (LiteRT: weights in int8, activations quantized at run time).
        calibration: required for int8.
        overwrite: whether to replace an existing export, in one step, once the new one is complete. A folder with other
            files, or an export whose files were changed, is never replaced.

    Raises:
        ValueError: the format or precision is not accepted, the backend does not write it, an extra is missing, the
            folder exists or another process exports to it, the model cannot be fused, or the artifact computes
            something else.
        OSError: another process took the folder, because this one did not renew its lock in time.

    Examples:
        >>> card = export(trained, folder / "pets", format="openvino")
        >>> card.comparison.max_difference < 1e-4
        True
        >>> sorted(path.name for path in (folder / "pets").iterdir())
        ['1', 'card.json']
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
        check_place(folder, overwrite)  # keeps files that came while the model was written
        if os.path.lexists(folder):
            exchange(partial, folder)
        else:
            os.rename(partial, folder)
    return card


def check_backend(chosen: Format) -> None:
    """Raises a `ValueError` unless the current backend of Keras writes the format."""
    backend, writer = keras.backend.backend(), chosen.backend
    if backend != writer:
        raise ValueError(
            f"Keras writes {chosen.name} on the {writer} backend; this is {backend}: set KERAS_BACKEND={writer}"
        )
    if keras.config.image_data_format() != "channels_last":
        raise ValueError("exported models take channels last; set keras.config.set_image_data_format('channels_last')")


def _fused(model: keras.Model, is_ours: bool) -> keras.Model:
    """Fuses the model, if it is of this package or all of its layers can be fused."""
    try:
        return fuse(model)
    except ValueError as error:
        if is_ours:
            raise
        tell("exported without fusing: %s", error)
        return model


def _with_size(model: keras.Model, preprocessing: Preprocessing) -> keras.Model:
    """Returns the model for images of the protocol's size, if the model takes any size."""
    shape = (preprocessing.image_size, preprocessing.image_size, preprocessing.channels)
    if tuple(model.input_shape[1:]) == shape:
        return model
    image = keras.Input(shape, name="image")
    return keras.Model(image, model(image), name=model.name)
