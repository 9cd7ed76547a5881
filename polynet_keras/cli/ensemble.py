"""`polynet ensemble`: a mixture of models, from the scores that they left."""

from absl import flags

from polynet_keras.cli.table import print_table
from polynet_keras.evaluation.metrics import Counts
from polynet_keras.evaluation.pooling import POOLINGS, SCORES, Pooling

USAGE = "SCORES.npz SCORES.npz ... [flags]"


def define_flags(values: flags.FlagValues) -> None:
    flags.DEFINE_string(
        "weights", "uniform", "uniform, fit, or one number for each member, e.g. 0.5,0.3,0.2.", flag_values=values
    )
    fit = "Scores of the same members on other images, to fit on, e.g. A.npz,B.npz. [a random half of the images]"
    flags.DEFINE_list("fit", None, fit, flag_values=values)
    flags.DEFINE_string("pooling", "selective", f"Of the crops: {', '.join(POOLINGS)}.", flag_values=values)
    flags.DEFINE_float("fraction", 0.3, "Best-scoring share of the crops, of selective pooling.", flag_values=values)
    flags.DEFINE_string("on", "probabilities", f"What is pooled: {' or '.join(SCORES)}.", flag_values=values)
    flags.DEFINE_integer("seed", 0, "Of the half that is fitted on.", lower_bound=0, flag_values=values)


def run(values: flags.FlagValues, arguments: list[str]) -> None:
    weights = _weights(values.weights)
    if values.fit is not None and weights != "fit":
        raise ValueError(f"--fit needs --weights=fit; got --weights={values.weights}")
    if len(arguments) < 2:
        raise ValueError(f"expected two files of scores or more; got {len(arguments)}")

    from polynet_keras.evaluation.ensemble import evaluate_ensemble
    from polynet_keras.evaluation.scores import Scores

    members = [Scores.load(path) for path in arguments]
    held_out = None if values.fit is None else [Scores.load(path) for path in values.fit]
    pooling = Pooling(values.pooling, values.fraction, values.on)
    report = evaluate_ensemble(members, weights, held_out, pooling=pooling, seed=values.seed)

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
            f"--weights={text} must be uniform, fit, or one number for each member, e.g. 0.5,0.3,0.2"
        ) from None


def _numbers(counts: Counts) -> tuple[str, ...]:
    low, high = counts.interval()
    return (
        f"{100 * counts.top1:.2f}",
        f"{100 * low:.2f} to {100 * high:.2f}",
        f"{100 * counts.top5:.2f}",
        f"{counts.loss:.4f}",
    )
