"""`polynet export`: a trained model for a runtime."""

import contextlib
import signal
from collections.abc import Iterator

from absl import flags

from polynet_keras.deployment.artifact import artifact_path
from polynet_keras.deployment.formats import FORMATS
from polynet_keras.training.runs.folder import latest_run_folder

USAGE = "[--run_dir RUN | --weights NAME_OR_FILE] --output FOLDER [flags]"


def define_flags(values: flags.FlagValues) -> None:
    others = {name: " or ".join(list(format.precisions)[1:]) for name, format in FORMATS.items()}
    precisions = "; ".join(f"{name}: {text}" for name, text in others.items() if text)
    texts = {
        "run_dir": "Folder of the run to export. [the newest in runs/]",
        "weights": "Checkpoint to export: a name of `polynet weights`, or a file of the released net.",
        "output": "Folder to write, which is not there yet.",
        "precision": f"float32; {precisions}. [float32]",
        "calibration": "What `polynet train --data` takes, whose training images int8 is calibrated on.",
    }
    for name, text in texts.items():
        flags.DEFINE_string(name, None, text, flag_values=values)
    flags.DEFINE_string("format", "openvino", f"One of {', '.join(FORMATS)}.", flag_values=values)
    flags.DEFINE_integer("calibration_images", 300, "How many images int8 is calibrated on.", flag_values=values)
    kept = "Layers that int8 leaves in float: names, or beginnings of names."
    flags.DEFINE_list("keep_float", [], kept, flag_values=values)


def run(values: flags.FlagValues, arguments: list[str]) -> None:
    if arguments:
        raise ValueError(f"unexpected argument {arguments[0]!r}; the folder is named with --output")
    if not values.output:
        raise ValueError("--output is missing: the folder to write")
    if values.run_dir is not None and values.weights is not None:
        raise ValueError("--run_dir and --weights name two models; name one")
    from polynet_keras.deployment.exporting import checked_precision, export
    from polynet_keras.evaluation.loading import load_published, load_run

    checked_precision(values.output, values.format, values.precision, values.calibration is not None)
    calibration = None
    if values.calibration is not None:
        from polynet_keras.data.sources import open_source
        from polynet_keras.deployment.calibration import Calibration

        examples = open_source(values.calibration, seed=0).training
        calibration = Calibration(examples, values.calibration_images, tuple(values.keep_float))
    if values.weights is not None:
        trained = load_published(values.weights)
    else:
        trained = load_run(values.run_dir or latest_run_folder())
    with _ending_in_order():
        card = export(trained, values.output, values.format, values.precision, calibration)
    comparison = card.comparison
    print(f"exported:    {trained.name} as {card.format}, {card.precision}, {card.size / 1e6:.1f} MB")
    print(f"artifact:    {artifact_path(values.output, card.format)}")
    print(
        f"compared:    on {comparison.images} {comparison.data}: probabilities differ by at most "
        f"{comparison.max_difference:.2g}; the best class is the same on {comparison.top1_agreement:.0%}"
    )
    print(f"serve it:    polynet serve {values.output}")


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
