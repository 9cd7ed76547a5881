"""`polynet evaluate`: measures a model on a dataset, with exact counts."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from absl import flags, logging

from polynet_keras.basics.checks import check_choice, check_integer
from polynet_keras.basics.extras import require_extra
from polynet_keras.basics.names import number_of, shell_quoted, shown
from polynet_keras.basics.stderr_filter import held_back
from polynet_keras.cli.choices import CROPS, LAYOUTS, ON_ERRORS
from polynet_keras.cli.headings import Heading
from polynet_keras.cli.model_flags import checked_model, define_card_flags, define_model_flag, define_weights_flags
from polynet_keras.cli.output_flags import check_file, check_new_file
from polynet_keras.cli.pooling_flags import define_pooling_flags, pooling_of
from polynet_keras.cli.recipe_flags import LAYOUT
from polynet_keras.cli.table import print_table

if TYPE_CHECKING:
    from polynet_keras.data.examples import Examples
    from polynet_keras.evaluation.comparing import Comparison
    from polynet_keras.evaluation.evaluating import Evaluation
    from polynet_keras.evaluation.results import Result
    from polynet_keras.pretrained.model_source import ModelSource
    from polynet_keras.training.recipes.recipe import Recipe

USAGE = "[--model MODEL] [--data DATA] [flags]"
EXAMPLES = (
    "polynet evaluate --report report.html",
    "polynet evaluate --model fashion_mnist --data fashion_mnist --crops 10",
)


def define_flags(values: flags.FlagValues) -> None:
    define_model_flag(values, "evaluate")
    against = "Another model to compare with, on the same images: as for --model, with a card if it needs one."
    Heading(values, "Model").string("against", None, against)
    data = Heading(values, "Data")
    what = "Data to evaluate on; --data of `polynet train` lists the possible values. [the run's held-out images]"
    data.string("data", None, what)
    data.string("split", None, "Split of the data. [the held-out one, or all of data without splits]")
    data.string("layout", None, f"{LAYOUT} [that of the run's recipe]", choices=LAYOUTS)
    data.integer("batch_size", 32, "Images, or crops of one image, in one forward pass.")
    skip = "What to do about an unreadable image: `error` or `skip`. [that of the run's recipe]"
    data.string("on_error", None, skip, choices=ON_ERRORS)
    crops = "Crops of each image for the model: 1, 10 or 144. [that of the run's recipe]"
    data.integer("crops", None, crops, choices=CROPS)
    define_pooling_flags(values)
    define_card_flags(values)
    define_weights_flags(values)
    output = Heading(values, "Output")
    output.string("results", "results.csv", "Table to which the result is added; empty for none.")
    scores = "File.npz of the crops' scores. It is written, or read if it exists: then other poolings cost nothing."
    output.string("scores", None, scores)
    report = "File.html for a report of the model, and with --against of the comparison."
    output.string("report", None, report)
    output.switch("json", False, "Print one JSON object with all numbers on standard output, and nothing else.")


def run(values: flags.FlagValues, arguments: list[str]) -> None:
    if arguments:
        raise ValueError(f"unexpected argument {arguments[0]!r}; name the model with --model, and the data with --data")
    if values.split is not None and values.data is None:
        raise ValueError("--split is for --data; without --data a run is evaluated on its held-out images")
    if values.results:
        check_file("results", values.results)
    if values.scores is not None:
        if values.against is not None:
            raise ValueError("--scores is for one model; leave out --scores or --against")
        if not values.scores.endswith(".npz"):
            raise ValueError(f"--scores={values.scores} must end in .npz")
        check_file("scores", values.scores)
    if values.report is not None:
        check_new_file("report", values.report, (".html",))

    check_integer("batch_size", values.batch_size, 1)

    from polynet_keras.data.crops import check_crops
    from polynet_keras.data.image_files import ON_ERROR
    from polynet_keras.data.source_names import check_data, is_same_data, modules_of
    from polynet_keras.data.splits import WHOLE
    from polynet_keras.evaluation import results
    from polynet_keras.pretrained.description import check_described
    from polynet_keras.pretrained.model_source import RECIPE_FILE, find_model
    from polynet_keras.training.recipes.recipe import Recipe
    from polynet_keras.training.runs.folder import check_data_is_there

    pooling = pooling_of(values)
    if values.crops is not None:
        check_crops("crops", values.crops)
    if values.on_error is not None:
        check_choice("on_error", values.on_error, ON_ERROR)
    if values.results and Path(values.results).exists():
        results.read(values.results)  # refuses a table that cannot take a row before the work begins
    source, about = checked_model(values)
    other = None
    if values.against is not None:
        require_extra("data", "scipy")
        other = find_model(values.against, "--against")
        check_described(other)
    recipe, run_folder = None, _run_folder(source)
    if run_folder is not None and ((run_folder / RECIPE_FILE).is_file() or values.data is None):
        recipe = Recipe.load(run_folder / RECIPE_FILE)
    elif values.data is None:
        raise ValueError(f"--data is missing: the images for {shown(source.name)}; only a run has held-out images")
    data = values.data or (recipe.data if recipe else "")
    layout = values.layout or "auto"
    if recipe and is_same_data(data, recipe.data):
        layout = values.layout or recipe.layout
    if recipe and run_folder and values.data is None:
        check_data_is_there(run_folder / RECIPE_FILE, recipe, "name the data with --data")
    splits = check_data("data", data, layout, values.split)
    is_own = recipe is not None and values.data is not None and is_same_data(data, recipe.data)
    if is_own and run_folder and values.split is None and splits is not None:
        _check_held_out(data, splits or [WHOLE], run_folder)
    require_extra("data", *modules_of(data), *(["PIL", "matplotlib"] if values.report is not None else []))

    from polynet_keras.data.sources import open_split
    from polynet_keras.evaluation.as_json import comparison_as_json, evaluation_as_json
    from polynet_keras.evaluation.comparing import compare
    from polynet_keras.evaluation.evaluating import evaluate
    from polynet_keras.evaluation.loading import load_source
    from polynet_keras.evaluation.report import write_report

    if recipe is None or run_folder is None:
        examples = open_split(values.data, values.split, layout)
    else:
        examples = _examples(run_folder, recipe, values.data, values.split, layout)
    if other is not None:
        advice = "train both with the same --seed" if run_folder else "swap --model and --against and leave out --data"
        _check_unseen(other, examples, data, values.split, advice)
    crops, on_error = (recipe.crops, recipe.on_error) if recipe else (1, "error")
    how = {
        "batch_size": values.batch_size,
        "crops": crops if values.crops is None else values.crops,
        "pooling": pooling,
        "on_error": on_error if values.on_error is None else values.on_error,
    }
    trained = load_source(source, about)
    comparison = None
    with held_back():
        if other is None:
            evaluation = evaluate(trained, examples, scores=values.scores, **how)
        else:
            comparison = compare(trained, load_source(other), examples, **how)
            evaluation = comparison.first
    if values.json:
        document = evaluation_as_json(evaluation) if comparison is None else comparison_as_json(comparison)
        print(json.dumps(document, allow_nan=False))
    elif comparison is None:
        _print_evaluation(evaluation)
    else:
        _print_comparison(comparison)
    # Last: if a disk is full, the results are already on the screen.
    say = logging.info if values.json else _print
    if values.results:
        for one in (evaluation,) if comparison is None else (comparison.first, comparison.second):
            results.append(one.result, values.results)
        command = shell_quoted(["polynet", "results", values.results])
        say("table:       %s; `%s` shows it", shown(values.results), command)
    if values.report is not None:
        write_report(values.report, evaluation, comparison, trained)
        say("report:      %s", shown(values.report))


def _print(text: str, *values: object) -> None:
    print(text % values)


def _print_evaluation(evaluation: "Evaluation") -> None:
    from polynet_keras.evaluation.metrics import TOP

    result = evaluation.result
    print(f"model:       {shown(result.model)}")
    _print_images(result)
    interval = f"95 % interval {result.top1_low:.2f} to {result.top1_high:.2f} %"
    print(f"top-1:       {result.top1:.2f} % ({result.top1_hits} of {number_of(result.images, 'image')}; {interval})")
    if len(evaluation.class_names) > TOP:  # with fewer classes, top-5 counts all images
        print(f"top-5:       {result.top5:.2f} % ({result.top5_hits})")
    print(f"loss:        {result.loss:.4f} nats; calibration error (ECE) {result.ece:.4f}")
    unit = " images/s" if result.seconds else ": only one batch ran, and its time includes compilation"
    print(f"speed:       {result.speed}{unit}")
    names = [shown(name) for name in evaluation.class_names]
    for true, predicted, count in evaluation.counts.worst_pairs(3):
        print(f"confused:    {names[true]} taken for {names[predicted]}: {count}")


def _print_images(result: "Result") -> None:
    from polynet_keras.data.protocol import Preprocessing

    skipped = f", {result.skipped} skipped" if result.skipped else ""
    print(f"dataset:     {shown(result.dataset)}: {number_of(result.images, 'image')}{skipped}")
    crops = number_of(result.crops, "crop") + f", {result.pooling}" * bool(result.pooling)
    print(f"protocol:    {Preprocessing(**json.loads(result.protocol)).description}; {crops}")


def _print_comparison(comparison: "Comparison") -> None:
    from polynet_keras.evaluation.comparison_text import HEADER, comparison_facts, comparison_rows

    print_table(HEADER, comparison_rows(comparison))
    print()
    for name, fact in comparison_facts(comparison).items():
        print(f"{name + ':':<12} {fact}")


def _run_folder(source: "ModelSource") -> Path | None:
    """Returns the folder of a model's run; for an exported model, the run's folder if it still exists."""
    from polynet_keras.deployment.artifact import ExportCard
    from polynet_keras.pretrained.model_source import RECIPE_FILE, Kind

    if source.kind is Kind.RUN:
        return source.path
    if source.kind is Kind.EXPORT:
        folder = Path(ExportCard.load(source.path).name)
        return folder if (folder / RECIPE_FILE).is_file() else None
    return None


def _check_unseen(other: "ModelSource", examples: "Examples", data: str, split: str | None, advice: str) -> None:
    """Refuses images that the other run was trained on: it would look better than it is."""
    from polynet_keras.data.source_names import is_same_data
    from polynet_keras.pretrained.model_card import ModelCard
    from polynet_keras.pretrained.model_source import RECIPE_FILE
    from polynet_keras.training.recipes.recipe import Recipe

    run_folder = _run_folder(other)
    if run_folder is None or split is not None or not (run_folder / RECIPE_FILE).is_file():
        return
    trained_on = Recipe.load(run_folder / RECIPE_FILE).data
    held_out = ModelCard.load(run_folder).held_out_fingerprint
    if is_same_data(data, trained_on) and held_out not in ("", examples.fingerprint):
        raise ValueError(
            f"--against={shown(other.name)} held out other images of {shown(data)}, and was trained on some of these; "
            f"{advice}, or name other data with --data"
        )


def _check_held_out(data: str, splits: Iterable[str], run_folder: Path) -> None:
    """Refuses the data of a run if they have no splits: the run was trained on most of them."""
    from polynet_keras.data.splits import WHOLE

    if WHOLE in splits:
        raise ValueError(
            f"--data={data} is what {run_folder} was trained on; leave out --data to evaluate on the held-out "
            f"images, or count all images with --split={WHOLE}"
        )


def _examples(run_folder: Path, recipe: "Recipe", data: str | None, split: str | None, layout: str) -> "Examples":
    """Returns the images to evaluate a run on: its held-out images, or other data; training images only on request."""
    from polynet_keras.data.source_names import is_same_data
    from polynet_keras.data.sources import open_split, open_splits
    from polynet_keras.training.runs.run_data import source_of_run

    if data is not None:
        examples = open_split(data, split, layout)
        if split is None and is_same_data(data, recipe.data):  # the splits of records, for example, are known only now
            _check_held_out(data, open_splits(data, layout), run_folder)
        return examples
    return source_of_run(run_folder, recipe, layout, "name other data with --data").held_out
