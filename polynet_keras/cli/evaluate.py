"""`polynet evaluate`: exact numbers of a model on a dataset."""

import os
from pathlib import Path

from absl import flags

from polynet_keras.basics.names import shown
from polynet_keras.basics.stderr_filter import held_back
from polynet_keras.data.crops import CROPS
from polynet_keras.data.decoding import ON_ERROR
from polynet_keras.data.examples import Examples
from polynet_keras.evaluation.pooling import POOLINGS, SCORES, Pooling
from polynet_keras.training.recipes.recipe import Recipe
from polynet_keras.training.runs.folder import RECIPE_FILE, latest_run_folder

USAGE = "[--run_dir RUN | --weights NAME_OR_FILE] [--data DATA] [flags]"


def define_flags(values: flags.FlagValues) -> None:
    texts = {
        "run_dir": "Folder of the run to evaluate. [the newest in runs/]",
        "weights": "Checkpoint to evaluate: a name of `polynet weights`, or a file of the released net.",
        "data": "What `polynet train --data` takes. [what the run held out]",
        "split": "Split of the data. [its held-out one, or all of data without splits]",
        "scores": "File.npz of the crops' scores: written, or read if there, so that other poolings cost nothing.",
        "report": "File.html to write a report to.",
    }
    for name, text in texts.items():
        flags.DEFINE_string(name, None, text, flag_values=values)
    flags.DEFINE_string("results", "results.csv", "Table that the run is added to; none if empty.", flag_values=values)
    flags.DEFINE_integer("batch_size", 32, "Images, or crops of an image, at once.", flag_values=values)
    accepted = ", ".join(map(str, CROPS))
    flags.DEFINE_integer("crops", None, f"Of each image: {accepted}. [as the run's recipe says]", flag_values=values)
    flags.DEFINE_string("pooling", "selective", f"Of the crops: {', '.join(POOLINGS)}.", flag_values=values)
    flags.DEFINE_float("fraction", 0.3, "Best-scoring share of the crops, of selective pooling.", flag_values=values)
    flags.DEFINE_string("on", "probabilities", f"What is pooled: {' or '.join(SCORES)}.", flag_values=values)
    accepted = " or ".join(ON_ERROR)
    flags.DEFINE_string(
        "on_error", None, f"For unreadable images: {accepted}. [as the run's recipe says]", flag_values=values
    )


def run(values: flags.FlagValues, arguments: list[str]) -> None:
    if arguments:
        raise ValueError(f"unexpected argument {arguments[0]!r}; the data is named with --data")
    if values.run_dir is not None and values.weights is not None:
        raise ValueError("--run_dir and --weights name two models; name one")
    if values.weights is not None and values.data is None:
        raise ValueError("--weights needs --data: what to evaluate on")
    if values.split is not None and values.data is None:
        raise ValueError("--split is of --data; a run without it is evaluated on what it held out")
    for name in ("report", "results", "scores"):
        path = Path(values[name].value or ".")
        if not path.parent.is_dir() or not os.access(path.parent, os.W_OK):
            raise ValueError(f"--{name}={path} is in no folder that exists and can be written; make it first")
    if values.report is not None and Path(values.report).exists():
        raise ValueError(f"--report={values.report} is there already; name a new file")

    from polynet_keras.data.sources import open_split
    from polynet_keras.evaluation import results
    from polynet_keras.evaluation.evaluating import evaluate
    from polynet_keras.evaluation.loading import load_published, load_run
    from polynet_keras.evaluation.report import write_report

    pooling = Pooling(values.pooling, values.fraction, values.on)
    if values.results and Path(values.results).exists():
        results.read(values.results)  # one that cannot take a row is refused before the work
    if values.weights is not None:
        examples = open_split(values.data, values.split)
        trained, crops, on_error = load_published(values.weights), 1, "error"
    else:
        run_folder = Path(values.run_dir or latest_run_folder())
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


def _examples(run_folder: Path, data: str | None, split: str | None) -> Examples:
    """What to evaluate a run on: what it held out, or other data; what it was trained on only if that is said."""
    from polynet_keras.data.sources import WHOLE, open_source, open_split, open_splits
    from polynet_keras.pretrained.model_card import ModelCard

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
