"""`polynet ensemble`: mixes models, from their files of scores or by scoring them here."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from absl import flags

from polynet_keras.basics.checks import check_integer
from polynet_keras.basics.extras import require_extra
from polynet_keras.basics.names import number_of, shown
from polynet_keras.basics.stderr_filter import held_back
from polynet_keras.cli.choices import CROPS, LAYOUTS
from polynet_keras.cli.headings import Heading
from polynet_keras.cli.pooling_flags import define_pooling_flags, pooling_of
from polynet_keras.cli.recipe_flags import LAYOUT
from polynet_keras.cli.table import print_table

if TYPE_CHECKING:
    from polynet_keras.evaluation.metrics import Counts
    from polynet_keras.evaluation.scores import Scores
    from polynet_keras.pretrained.model_source import ModelSource

USAGE = """MEMBER MEMBER ... [flags]

A MEMBER is a file of scores from `polynet evaluate --scores`, or a model, as for --model of `polynet evaluate`: then
--data names the images to score."""
EXAMPLES = (
    "polynet ensemble a.npz b.npz",
    "polynet ensemble runs/a runs/b --data photos --split test",
    "polynet ensemble a.npz b.npz --mixture fit",
)


def define_flags(values: flags.FlagValues) -> None:
    mixture = Heading(values, "Mixture")
    mixture.string(
        "mixture", "uniform", "Weights of the members: `uniform`, `fit`, or one number for each, such as 0.5,0.3,0.2."
    )
    fit = "Scores of the same members on other images, to fit on: A.npz,B.npz. [a random half of the images]"
    mixture.list("fit", None, fit)
    mixture.integer("seed", 0, "Seed of the draw of the half to fit on.", lowest=0)
    define_pooling_flags(values)
    data = Heading(values, "Data, for members that are models")
    data.string("data", None, "Images to score them on; --data of `polynet train` lists the possible values.")
    data.string("split", None, "Split of the data. [the held-out one, or all of data without splits]")
    data.string("layout", "auto", LAYOUT, choices=LAYOUTS)
    data.integer("crops", 1, "Crops of each image for the models: 1, 10 or 144.", choices=CROPS)
    data.integer("batch_size", 32, "Images, or crops of one image, in one forward pass.")


def run(values: flags.FlagValues, arguments: list[str]) -> None:
    weights = _weights(values.mixture)
    if values.fit is not None and weights != "fit":
        raise ValueError(f"--fit needs --mixture=fit; got --mixture={values.mixture}")
    require_extra("data", "scipy")
    if len(arguments) < 2:
        raise ValueError(f"expected two files of scores or models, or more; got {len(arguments)}")
    models = {member: model for member in arguments if (model := _model(member)) is not None}
    if models and values.data is None:
        raise ValueError(
            f"--data is missing: '{shown(next(iter(models)))}' is a model, not a file of scores; name the images to "
            "score"
        )
    if values.data is not None:
        _check_data(values, models)

    from polynet_keras.evaluation.ensemble import evaluate_ensemble
    from polynet_keras.evaluation.scores import Scores

    scores = {member: Scores.load(member) for member in arguments if member not in models}
    scores |= _scored(values, models)
    members = [scores[member] for member in arguments]
    held_out = None if values.fit is None else [Scores.load(path) for path in values.fit]
    report = evaluate_ensemble(members, weights, held_out, pooling=pooling_of(values), seed=values.seed)

    fitted = f"; weights fitted on {number_of(report.fitted_images, 'other')}" if report.fitted_images else ""
    images, classes = (number_of(report.mixture.images, "image"), number_of(report.mixture.classes, "class", "classes"))
    print(f"{report.dataset}: {images}, {classes}{fitted}")
    rows = [
        (member.name, f"{member.weight:.4f}", *_numbers(member.counts), path)
        for member, path in zip(report.members, arguments, strict=True)
    ]
    rows.append(("mixture", "", *_numbers(report.mixture), ""))
    print_table(("member", "weight", "top-1 %", "95 % interval", "top-5 %", "loss", "scores"), rows)
    low, high = report.paired.interval()
    print(
        f"\ngain over {report.best.name}, the best member: top-1 {100 * report.gain:+.2f} points, 95 % interval "
        f"{100 * low:+.2f} to {100 * high:+.2f}, McNemar's exact p-value {report.paired.p_value:.2g}; "
        f"loss {-report.loss_gain:+.4f} against the lowest of a member"
    )


def _model(member: str) -> "ModelSource | None":
    """Returns the named model, or None for a file of scores."""
    from polynet_keras.pretrained.description import check_described
    from polynet_keras.pretrained.model_source import Kind, find_model

    if member.endswith(".npz"):
        return None
    source = find_model(member, "MEMBER")
    if source.kind is Kind.WEIGHTS and not member.endswith((".h5", ".pth", ".pt")):
        return None  # any file, whatever its name
    check_described(source)
    return source


def _check_data(values: flags.FlagValues, models: "Mapping[str, ModelSource]") -> None:
    from polynet_keras.data.crops import check_crops
    from polynet_keras.data.source_names import check_data, modules_of

    if not models:
        raise ValueError("--data is for members that are models, but all of these are files of scores")
    check_integer("batch_size", values.batch_size, 1)
    check_crops("crops", values.crops)
    check_data("data", values.data, values.layout, values.split)
    require_extra("data", *modules_of(values.data))


def _scored(values: flags.FlagValues, models: "Mapping[str, ModelSource]") -> "dict[str, Scores]":
    """Returns the scores of the models, loaded one after the other."""
    if not models:
        return {}

    from polynet_keras.data.sources import open_split
    from polynet_keras.evaluation.loading import load_source
    from polynet_keras.evaluation.scoring import score

    examples = open_split(values.data, values.split, values.layout)
    with held_back():
        return {
            member: score(load_source(source), examples, batch_size=values.batch_size, crops=values.crops)
            for member, source in models.items()
        }


def _weights(text: str) -> str | list[float]:
    if text in ("uniform", "fit"):
        return text
    try:
        return [float(number) for number in text.split(",")]
    except ValueError:
        raise ValueError(
            f"--mixture={text} must be uniform, fit, or one number for each member, e.g. 0.5,0.3,0.2"
        ) from None


def _numbers(counts: "Counts") -> tuple[str, ...]:
    low, high = counts.interval()
    return (
        f"{100 * counts.top1:.2f}",
        f"{100 * low:.2f} to {100 * high:.2f}",
        f"{100 * counts.top5:.2f}",
        f"{counts.loss:.4f}",
    )
