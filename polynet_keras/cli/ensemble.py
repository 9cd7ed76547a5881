"""`polynet ensemble`: a mixture of models, from the scores that they left."""

from typing import TYPE_CHECKING

from absl import flags

from polynet_keras.cli.headings import Heading
from polynet_keras.cli.pooling_flags import define_pooling_flags, pooling_of
from polynet_keras.cli.table import print_table

if TYPE_CHECKING:
    from polynet_keras.evaluation.metrics import Counts

USAGE = "SCORES.npz SCORES.npz ... [flags]"


def define_flags(values: flags.FlagValues) -> None:
    mixture = Heading(values, "Mixture")
    mixture.string(
        "mixture", "uniform", "Weights of the members: `uniform`, `fit`, or one number for each, such as 0.5,0.3,0.2."
    )
    fit = "Scores of the same members on other images, to fit on: A.npz,B.npz. [a random half of the images]"
    mixture.list("fit", None, fit)
    mixture.integer("seed", 0, "Seed of the draw of the half that is fitted on.", lowest=0)
    define_pooling_flags(values)


def run(values: flags.FlagValues, arguments: list[str]) -> None:
    weights = _weights(values.mixture)
    if values.fit is not None and weights != "fit":
        raise ValueError(f"--fit needs --mixture=fit; got --mixture={values.mixture}")
    if len(arguments) < 2:
        raise ValueError(f"expected two files of scores or more; got {len(arguments)}")

    from polynet_keras.evaluation.ensemble import evaluate_ensemble
    from polynet_keras.evaluation.scores import Scores

    members = [Scores.load(path) for path in arguments]
    held_out = None if values.fit is None else [Scores.load(path) for path in values.fit]
    report = evaluate_ensemble(members, weights, held_out, pooling=pooling_of(values), seed=values.seed)

    fitted = f"; weights fitted on {report.fitted_images:,} others" if report.fitted_images else ""
    print(f"{report.dataset}: {report.mixture.images:,} images, {report.mixture.classes} classes{fitted}")
    rows = [
        (member.name, f"{member.weight:.4f}", *_numbers(member.counts), path)
        for member, path in zip(report.members, arguments, strict=True)
    ]
    rows.append(("mixture", "", *_numbers(report.mixture), ""))
    print_table(("member", "weight", "top-1 %", "95 % interval", "top-5 %", "loss", "scores"), rows)
    low, high = report.gain_interval
    print(
        f"\ngain over {report.best.name}, the best member: top-1 {100 * report.gain:+.2f} points, 95 % interval "
        f"{100 * low:+.2f} to {100 * high:+.2f}; loss {-report.loss_gain:+.4f} against the lowest of a member"
    )


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
