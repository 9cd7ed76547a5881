"""`polynet evaluate`: exact numbers of a model on a dataset."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

from absl import flags

from polynet_keras.basics.names import shown
from polynet_keras.basics.stderr_filter import held_back
from polynet_keras.cli.headings import Heading
from polynet_keras.cli.model_flags import check_model_flags, define_model_flags, run_folder_of
from polynet_keras.cli.output_flags import check_file, check_new_file
from polynet_keras.cli.pooling_flags import define_pooling_flags, pooling_of

if TYPE_CHECKING:
    from polynet_keras.data.examples import Examples

USAGE = "[--run_dir RUN | --weights NAME_OR_FILE] [--data DATA] [flags]"


def define_flags(values: flags.FlagValues) -> None:
    define_model_flags(values, "evaluate")
    data = Heading(values, "Data")
    what = "What to evaluate on; --data of `polynet train` has what it may be. [what the run held out]"
    data.string("data", None, what)
    data.string("split", None, "Split of the data. [the one that is held out, or all of data without splits]")
    data.integer("batch_size", 32, "Images, or crops of one image, that the model is shown at once.")
    data.string("on_error", None, "What to do about an unreadable image: `error` or `skip`. [as the run's recipe says]")
    crops = "Crops of each image that the model is shown: 1, 10 or 144. [as the run's recipe says]"
    data.integer("crops", None, crops)
    define_pooling_flags(values)
    output = Heading(values, "Output")
    output.string("results", "results.csv", "Table that the result is added to; empty for none.")
    scores = "File.npz of the crops' scores. It is written, or read if it is there: then other poolings cost nothing."
    output.string("scores", None, scores)
    output.string("report", None, "File.html to write a report to.")


def run(values: flags.FlagValues, arguments: list[str]) -> None:
    if arguments:
        raise ValueError(f"unexpected argument {arguments[0]!r}; the data is named with --data")
    check_model_flags(values)
    if values.weights is not None and values.data is None:
        raise ValueError("--weights needs --data: what to evaluate on")
    if values.split is not None and values.data is None:
        raise ValueError("--split is of --data; a run without it is evaluated on what it held out")
    if values.results:
        check_file("results", values.results)
    if values.scores is not None:
        check_file("scores", values.scores)
    if values.report is not None:
        check_new_file("report", values.report)

    from polynet_keras.data.sources import open_split
    from polynet_keras.evaluation import results
    from polynet_keras.evaluation.evaluating import evaluate
    from polynet_keras.evaluation.loading import load_published, load_run
    from polynet_keras.evaluation.report import write_report
    from polynet_keras.training.recipes.recipe import Recipe
    from polynet_keras.training.runs.folder import RECIPE_FILE

    pooling = pooling_of(values)
    if values.results and Path(values.results).exists():
        results.read(values.results)  # one that cannot take a row is refused before the work
    if values.weights is not None:
        examples = open_split(values.data, values.split)
        trained, crops, on_error = load_published(values.weights), 1, "error"
    else:
        run_folder = run_folder_of(values)
        examples = _examples(run_folder, values.data, values.split)
        trained = load_run(run_folder)
        recipe_file = run_folder / RECIPE_FILE
        recipe = Recipe.load(recipe_file) if recipe_file.is_file() else None
        crops, on_error = (recipe.crops, recipe.on_error) if recipe else (1, "error")
    with held_back():
        evaluation = evaluate(
            trained,
            examples,
            batch_size=values.batch_size,
            crops=crops if values.crops is None else values.crops,
            pooling=pooling,
            scores_file=values.scores,
            on_error=on_error if values.on_error is None else values.on_error,
        )
    result = evaluation.result
    print(f"model:       {result.model}")
    skipped = f", {result.skipped} skipped" if result.skipped else ""
    print(f"dataset:     {result.dataset}: {result.images} images{skipped}")
    print(f"protocol:    {result.protocol}, {result.crops} crop(s){', ' * bool(result.pooling)}{result.pooling}")
    interval = f"95 % interval {result.top1_low:.2f} to {result.top1_high:.2f} %"
    print(f"top-1:       {result.top1:.2f} % ({result.top1_hits} of {result.images} images; {interval})")
    print(f"top-5:       {result.top5:.2f} % ({result.top5_hits})")
    print(f"loss:        {result.loss:.4f} nats; calibration error (ECE) {result.ece:.4f}")
    print(f"speed:       {result.images_per_second:.1f} images/s")
    names = [shown(name) for name in trained.class_names]
    for true, predicted, count in evaluation.counts.worst_pairs(3):
        print(f"confused:    {names[true]} taken for {names[predicted]}: {count}")
    # Last: what was found is on the screen, if a disk is full.
    if values.results:
        results.append(result, values.results)
        print(f"table:       {values.results}; `polynet results {values.results}` shows it")
    if values.report is not None:
        write_report(values.report, result, evaluation.counts, evaluation.mistakes, trained.class_names)
        print(f"report:      {values.report}")


def _examples(run_folder: Path, data: str | None, split: str | None) -> "Examples":
    """What to evaluate a run on: what it held out, or other data; what it was trained on only if that is said."""
    from polynet_keras.data.sources import WHOLE, open_source, open_split, open_splits
    from polynet_keras.pretrained.model_card import ModelCard
    from polynet_keras.training.recipes.recipe import Recipe
    from polynet_keras.training.runs.folder import RECIPE_FILE

    path = run_folder / RECIPE_FILE
    recipe = Recipe.load(path) if data is None or path.exists() else None
    if data is not None:
        examples = open_split(data, split)
        same = recipe is not None and os.path.realpath(data) == os.path.realpath(recipe.data)
        if same and split is None and WHOLE in open_splits(data):
            raise ValueError(
                f"--data={data} is what {run_folder} was trained on; leave --data out to evaluate on what it held out, "
                f"or count all of it with --split={WHOLE}"
            )
        return examples
    assert recipe is not None
    examples = open_source(recipe.data, recipe.seed).held_out
    expected = ModelCard.load(run_folder).held_out_fingerprint
    if expected and expected != examples.fingerprint:
        raise ValueError(
            f"{recipe.data!r} has changed since {run_folder} was trained: what it held out is not known any more; "
            "name other data with --data"
        )
    return examples
