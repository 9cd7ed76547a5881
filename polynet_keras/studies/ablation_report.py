"""What an ablation found: the table, the plot of error over compute, and the answer to its question."""

import os
import statistics
from collections.abc import Sequence

from polynet_keras.studies.ablation_outcomes import Outcome
from polynet_keras.studies.ablation_variants import MIXED
from polynet_keras.studies.paired_seeds import (
    PairedDifferences,
    comparisons,
    confidence_interval,
    has_spread,
    holm,
    p_value,
)

COLUMNS = (
    *("net", "stage", "structure", "trainable parameters", "MMAC", "error, %", "seeds"),
    *("at equal depth, points", "at equal compute, points", "which is", "training, s"),
)
TEXTS = ("net", "stage", "structure", "which is")


def ablation_answer(outcomes: Sequence[Outcome]) -> str:
    """Whether PolyNet beats Inception-ResNet at the same compute, and what it is at the same depth.

    Of each seed there is a mean over all pairs; the interval is of these means.

    Examples:
        >>> print(ablation_answer(outcomes).partition(" Over")[0])
        Does PolyNet beat Inception-ResNet at the same compute here? Not decided.
    """
    means = {equal: _mean_of_pairs(comparisons(outcomes, equal)) for equal in ("compute", "depth")}
    if len(means["compute"]) < 2:
        return "Whether PolyNet beats Inception-ResNet at the same compute takes two or more seeds to say."
    mean, low, high = confidence_interval(means["compute"])
    verdict = "Yes" if high < 0 else "No: Inception-ResNet does better" if low > 0 else "Not decided"
    if not has_spread(means["compute"]):
        verdict = "Not decided"
    seeds = len(means["compute"])
    return (
        f"Does PolyNet beat Inception-ResNet at the same compute here? {verdict}. Over {seeds} seeds the error of "
        f"Poly and K-way nets is {_points(mean, low, high)} from that of Inception-ResNets with as many "
        f"multiply-accumulates, and {_points(*confidence_interval(means['depth']))} from that of the "
        "Inception-ResNet of the same depth, which takes fewer."
    )


def _points(mean: float, low: float, high: float) -> str:
    return f"{100 * mean:+.2f} points (95 % interval {100 * low:+.2f} to {100 * high:+.2f})"


def _mean_of_pairs(pairs: Sequence[PairedDifferences]) -> list[float]:
    """Of each seed that all pairs have."""
    seeds = set.intersection(*(set(pair.differences) for pair in pairs)) if pairs else set()
    return [statistics.fmean(pair.differences[seed] for pair in pairs) for seed in sorted(seeds)]


def ablation_table(outcomes: Sequence[Outcome]) -> str:
    """The table: a line a net, mean ± sample standard deviation over seeds; so are the differences, seed by seed, from
    the Inception-ResNets of the same depth and of the same compute.

    Examples:
        >>> for line in ablation_table(outcomes).splitlines():
        ...     print(line.partition(" | ")[0])
        | net
        | ---
        | ir 1-1-1
        | A 2-way
    """
    by_variant: dict[str, list[Outcome]] = {}
    for outcome in outcomes:
        by_variant.setdefault(outcome.variant, []).append(outcome)
    depth, compute = ({p.variant: p for p in comparisons(outcomes, equal)} for equal in ("depth", "compute"))
    lines = [
        f"| {' | '.join(COLUMNS)} |",
        f"| {' | '.join('---' if name in TEXTS else '---:' for name in COLUMNS)} |",
    ]
    for name, rows in by_variant.items():
        first = rows[0]
        errors = [100 * row.error for row in rows]
        structure = first.structure.replace("|", "\\|")
        cells = (
            name,
            first.stage,
            f"`{structure}`",
            f"{first.parameters:,}",
            f"{first.macs / 1e6:.2f}",
            _mean_and_deviation(errors),
            str(len(rows)),
            *(_difference(pairs.get(name)) for pairs in (depth, compute)),
            first.same_compute,
            f"{statistics.fmean(row.seconds for row in rows):.0f}",
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def paired_table(outcomes: Sequence[Outcome], level: float = 0.95) -> str:
    """The comparisons at equal compute: a line for each net with its mean difference, interval and p-values.

    The p-values are those of Student's two-sided t test over the seeds. Holm's adjusted ones hold for all lines
    together: if no net differs from its Inception-ResNet, the probability that any of them is below 0.05 is at most
    5 %. There is no p-value where all seeds have the same difference.
    Source: S. Holm, "A simple sequentially rejective multiple test procedure", 1979.

    Args:
        outcomes: outcomes of a study with two or more seeds.
        level: confidence level of the intervals, between 0 and 1.

    Examples:
        >>> for line in paired_table(outcomes).splitlines():
        ...     print(line.partition(" | ")[0])
        | net
        | ---
        | A 2-way
    """
    pairs = [pair for pair in comparisons(outcomes, "compute") if len(pair.differences) > 1]
    header = ("net", "against", "seeds", "difference, points", f"{100 * level:g} % interval", "p", "p, Holm")
    lines = [f"| {' | '.join(header)} |", "| --- | --- | ---: | ---: | ---: | ---: | ---: |"]
    by_net = {pair.variant: [*pair.differences.values()] for pair in pairs}
    values = {net: p_value(differences) for net, differences in by_net.items() if has_spread(differences)}
    adjusted = dict(zip(values, holm([*values.values()]), strict=True))
    for pair in pairs:
        mean, low, high = (100 * bound for bound in confidence_interval(by_net[pair.variant], level))
        tested = [f"{found[pair.variant]:.3g}" if pair.variant in found else "-" for found in (values, adjusted)]
        cells = (
            *(pair.variant, pair.baseline, str(len(pair.differences))),
            *(f"{mean:+.2f}", f"{low:+.2f} to {high:+.2f}", *tested),
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def plot_ablation(outcomes: Sequence[Outcome], picture_file: str | os.PathLike) -> None:
    """Draws error over multiply-accumulates: the mean of each net, and its deviation over seeds as a bar.

    Examples:
        >>> plot_ablation(outcomes, folder / "ablation.png")
        >>> (folder / "ablation.png").exists()
        True
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    stages = {"": "Inception-ResNet", "A": "stage A", "B": "stage B", "C": "stage C", MIXED: "mixed"}
    for (stage, label), marker in zip(stages.items(), "os^vD", strict=True):
        rows: dict[str, list[Outcome]] = {}
        for outcome in outcomes:
            if outcome.stage == stage:
                rows.setdefault(outcome.variant, []).append(outcome)
        if not rows:
            continue
        points = sorted(
            (found[0].macs / 1e6, *_mean_deviation([100 * outcome.error for outcome in found]), name)
            for name, found in rows.items()
        )
        macs, means, deviations, names = zip(*points, strict=True)
        line = "-" if not stage else ""
        axes.errorbar(macs, means, deviations, label=label, marker=marker, linestyle=line, capsize=2, alpha=0.8)
        if stage:
            for x, y, name in zip(macs, means, names, strict=True):
                axes.annotate(name.partition(" ")[2], (x, y), xytext=(5, 3), textcoords="offset points", fontsize=7)
    axes.set_xlabel("million multiply-accumulates of one image")
    axes.set_ylabel("held-out error, %")
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(picture_file, dpi=120)


def _difference(pair: PairedDifferences | None) -> str:
    return _mean_and_deviation([100 * d for d in pair.differences.values()], sign="+") if pair else ""


def _mean_deviation(values: Sequence[float]) -> tuple[float, float]:
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else 0.0


def _mean_and_deviation(values: Sequence[float], sign: str = "") -> str:
    mean, deviation = _mean_deviation(values)
    return f"{mean:{sign}.2f}" + (f" ± {deviation:.2f}" if len(values) > 1 else "")
