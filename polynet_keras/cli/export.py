"""`polynet export`: a trained model for a runtime."""

import contextlib
import signal
from collections.abc import Iterator

from absl import flags

from polynet_keras.cli.headings import Heading
from polynet_keras.cli.model_flags import check_model_flags, define_model_flags, run_folder_of
from polynet_keras.cli.output_flags import define_output_flag, output_of

USAGE = "[--run_dir RUN | --weights NAME_OR_FILE] --output FOLDER [flags]"


def define_flags(values: flags.FlagValues) -> None:
    define_model_flags(values, "export")
    define_output_flag(values, "Folder to write, which is not there yet.")
    artifact = Heading(values, "Format")
    artifact.string("format", "openvino", "`saved_model`, `onnx`, `openvino`, `litert` or `torch`.")
    precision = "`float32`; of openvino also `float16` and `int8`, of litert also `dynamic`. [float32]"
    artifact.string("precision", None, precision)
    calibration = Heading(values, "Calibration of int8")
    data = "Data whose training images int8 is calibrated on; --data of `polynet train` has what it may be."
    calibration.string("calibration", None, data)
    calibration.integer("calibration_images", 300, "Images that int8 is calibrated on.")
    calibration.list("keep_float", [], "Layers that stay in float: their names, or how the names begin.")


def run(values: flags.FlagValues, arguments: list[str]) -> None:
    if arguments:
        raise ValueError(f"unexpected argument {arguments[0]!r}; the folder is named with --output")
    output = output_of(values, "the folder to write")
    check_model_flags(values)

    from polynet_keras.deployment.artifact import artifact_path
    from polynet_keras.deployment.exporting import checked_precision, export
    from polynet_keras.evaluation.loading import load_published, load_run

    checked_precision(output, values.format, values.precision, values.calibration is not None)
    calibration = None
    if values.calibration is not None:
        from polynet_keras.data.sources import open_source
        from polynet_keras.deployment.calibration import Calibration

        examples = open_source(values.calibration, seed=0).training
        calibration = Calibration(examples, values.calibration_images, tuple(values.keep_float))
    trained = load_run(run_folder_of(values)) if values.weights is None else load_published(values.weights)
    with _ending_in_order():
        card = export(trained, output, values.format, values.precision, calibration)
    comparison = card.comparison
    print(f"exported:    {trained.name} as {card.format}, {card.precision}, {card.size / 1e6:.1f} MB")
    print(f"artifact:    {artifact_path(output, card.format)}")
    print(
        f"compared:    on {comparison.images} {comparison.data}: probabilities differ by at most "
        f"{comparison.max_difference:.2g}; the best class is the same on {comparison.top1_agreement:.0%}"
    )
    print(f"serve it:    polynet serve {output}")


@contextlib.contextmanager
def _ending_in_order() -> Iterator[None]:
    """SIGTERM ends the process as an error would, so that what is half written is removed."""

    def end(number, frame):
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
