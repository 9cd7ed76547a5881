"""`polynet export`: writes a trained model for a runtime."""

import contextlib
import signal
from collections.abc import Iterator
from typing import TYPE_CHECKING

from absl import flags

from polynet_keras.basics.checks import check_integer, check_number
from polynet_keras.basics.names import number_of, shell_quoted, shown, some_of
from polynet_keras.cli.choices import LAYOUTS
from polynet_keras.cli.headings import Heading
from polynet_keras.cli.model_flags import checked_model, define_card_flags, define_model_flag, define_weights_flags
from polynet_keras.cli.output_flags import define_output_flag, output_of
from polynet_keras.cli.recipe_flags import LAYOUT
from polynet_keras.deployment.formats import FORMATS

if TYPE_CHECKING:
    from polynet_keras.data.examples import Source
    from polynet_keras.deployment.artifact import ExportCard
    from polynet_keras.pretrained.model_source import ModelSource

USAGE = "[--model MODEL] --output FOLDER [flags]"
EXAMPLES = (
    "polynet export --model runs/photos --output exported",
    "polynet export --model fashion_mnist --precision int8 --calibration fashion_mnist --output clothes-int8",
)


def define_flags(values: flags.FlagValues) -> None:
    define_model_flag(values, "export", "a run folder, a .keras file, a weights file, or a name of `polynet weights`")
    define_output_flag(values, "Folder to write; it must not exist yet.")
    Heading(values, "Output").switch(
        "overwrite", False, "Replace the export in --output, if the folder holds nothing else."
    )
    artifact = Heading(values, "Format")
    *names, last = (f"`{name}`" for name in FORMATS)
    artifact.string("format", "openvino", f"{', '.join(names)} or {last}.", choices=tuple(FORMATS))
    precision = f"Precision of the weights; {_precisions()}. [the first one of the format]"
    precisions = dict.fromkeys(name for format in FORMATS.values() for name in format.precisions)
    artifact.string("precision", None, precision, choices=tuple(precisions))
    calibration = Heading(values, "Calibration of int8")
    data = (
        "Data for int8: the training images for calibration, the held-out images for comparison; --data of `polynet "
        "train` lists the possible values."
    )
    calibration.string("calibration", None, data)
    calibration.string("layout", "auto", LAYOUT, choices=LAYOUTS)
    calibration.integer("calibration_images", 300, "Images for the calibration of int8.")
    calibration.integer("comparison_images", 1000, "Largest number of held-out images for the comparison of int8.")
    calibration.list("keep_float", [], "Layers that stay in float: their names, or the beginnings of their names.")
    drop = "Percentage points of top-1 that int8 may lose: layers return to float until the loss is within it."
    calibration.number("max_drop", None, drop)
    define_card_flags(values)
    define_weights_flags(values)


def _precisions() -> str:
    """Returns the precisions of each format, for the help."""
    formats_of: dict[str, list[str]] = {}
    for name, format in FORMATS.items():
        formats_of.setdefault(", ".join(f"`{precision}`" for precision in format.precisions), []).append(name)
    return "; ".join(f"{', '.join(formats)}: {precisions}" for precisions, formats in formats_of.items())


def run(values: flags.FlagValues, arguments: list[str]) -> None:
    if arguments:
        raise ValueError(f"unexpected argument {arguments[0]!r}; name the folder with --output")
    output = output_of(values, "the folder to write")

    from polynet_keras.deployment.artifact import artifact_path
    from polynet_keras.deployment.checking import check_export

    calibrated = values.calibration is not None
    chosen, precision = check_export(
        output, values.format, values.precision, calibrated, values.overwrite, values.max_drop
    )
    if values.calibration is not None:
        from polynet_keras.data.source_names import check_data

        check_data("calibration", values.calibration, values.layout)
        check_integer("calibration_images", values.calibration_images, 1)
        check_integer("comparison_images", values.comparison_images, 2)
        if values.max_drop is not None:
            check_number("max_drop", values.max_drop, at_least=0, below=100)
    source, about = checked_model(values)

    from polynet_keras.deployment.exporting import check_backend, export
    from polynet_keras.evaluation.loading import load_source

    check_backend(chosen)
    calibration = None
    if values.calibration is not None:
        from polynet_keras.deployment.calibration import Calibration

        data, on_error = _calibration_data(source, values.calibration, values.layout)
        calibration = Calibration(
            data.training,
            data.held_out,
            values.calibration_images,
            values.comparison_images,
            tuple(values.keep_float),
            values.max_drop,
            on_error,
        )
    trained = load_source(source, about)
    with _ending_in_order():
        card = export(trained, output, chosen.name, precision, calibration, values.overwrite)
    print(f"exported:    {shown(trained.name)} as {card.format}, {card.precision}, {card.size / 1e6:.1f} MB")
    print(f"artifact:    {shown(artifact_path(output, card.format))}")
    _print_comparison(card)
    print(f"serve it:    {shell_quoted(['polynet', 'serve', output])}")


def _calibration_data(source: "ModelSource", calibration: str, layout: str) -> "tuple[Source, str]":
    """Returns the data and the handling of unreadable images. For an exported run's own data, both are the run's."""
    from polynet_keras.data.source_names import is_same_data
    from polynet_keras.data.sources import open_source
    from polynet_keras.pretrained.model_source import RECIPE_FILE, Kind
    from polynet_keras.training.recipes.recipe import Recipe
    from polynet_keras.training.runs.run_data import source_of_run

    if source.kind is Kind.RUN and (source.path / RECIPE_FILE).is_file():
        recipe = Recipe.load(source.path / RECIPE_FILE)
        if is_same_data(calibration, recipe.data):
            layout = recipe.layout if layout == "auto" else layout
            return source_of_run(source.path, recipe, layout, "name other data with --calibration"), recipe.on_error
    return open_source(calibration, seed=0, layout=layout), "error"


def _print_comparison(card: "ExportCard") -> None:
    comparison, top1 = card.comparison, card.comparison.top1
    print(
        f"compared:    on {comparison.images} {shown(comparison.data)}: probabilities differ by at most "
        f"{comparison.max_difference:.2g}; the best class is the same on {comparison.top1_agreement:.0%}"
    )
    if top1 is not None:
        right = f"{top1.exported} and {number_of(top1.original, 'image')}"
        original, exported = (100 * hits / comparison.images for hits in (top1.original, top1.exported))
        print(
            f"top-1:       {exported:.2f} %, Keras {original:.2f} % ({right}): "
            f"{top1.drop:.2f} points lost, 95 % interval {top1.drop_low:.2f} to {top1.drop_high:.2f}"
        )
    if card.calibration and "given_back" in card.calibration:
        layers = card.calibration["given_back"]
        names = f": {some_of(layers, 10)}" if layers else ""
        print(f"in float:    {number_of(len(layers), 'layer')} went back to keep to --max_drop{names}")


@contextlib.contextmanager
def _ending_in_order() -> Iterator[None]:
    """Makes SIGTERM end the process as an error does, so that incomplete files are removed."""

    def end(number, frame):
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
