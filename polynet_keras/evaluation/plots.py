"""A plot of the table of results: accuracy against cost."""

import math
import os
from collections.abc import Sequence
from typing import Any

from polynet_keras.basics.extras import require_extra
from polynet_keras.evaluation.results import Result


def plot_results(results: Sequence[Result], picture_file: str | os.PathLike) -> None:
    """Plots top-1 error, with its 95 % interval, against the MACs of an image and against the parameters.

    The MACs are those of all crops. Each dataset has a colour. The half for MACs omits results without MACs.

    Args:
        results: at least one result.
        picture_file: file of a format that matplotlib writes, by its suffix.

    Raises:
        ValueError: there are no results, the suffix is unknown, or matplotlib is not installed.
    """
    if not results:
        raise ValueError("there is no result to draw")
    require_extra("data", "matplotlib")
    # The object interface draws without pyplot's global state and without a display.
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.5), layout="constrained")
    by_macs, by_parameters = figure.subplots(1, 2, sharey=True)
    _plot_against(by_macs, [result.macs * result.crops for result in results], results)
    _plot_against(by_parameters, [result.parameters for result in results], results)
    by_macs.set_xlabel("multiply-accumulates of an image, all crops")
    by_parameters.set_xlabel("parameters")
    by_macs.set_ylabel("top-1 error in %, 95 % interval")
    legend = figure.legend(*by_parameters.get_legend_handles_labels(), loc="outside upper center", ncols=4)
    for text in legend.get_texts():
        text.set_parse_math(False)
    figure.savefig(picture_file, dpi=120)


def _plot_against(axes: Any, costs: Sequence[int], results: Sequence[Result]) -> None:
    from matplotlib.ticker import EngFormatter, LogLocator, NullLocator

    known = [cost for cost in costs if cost] or [1]
    low, high = min(known) / 2, max(known) * 2
    colors: dict[str, str] = {}
    for cost, result in zip(costs, results, strict=True):
        label = None if result.dataset in colors else result.dataset
        color = colors.setdefault(result.dataset, f"C{len(colors)}")
        # A result without a cost is not drawn, but keeps its colour.
        error = 100 - result.top1 if cost else math.nan
        interval = [[result.top1_high - result.top1], [result.top1 - result.top1_low]]
        axes.errorbar(cost, error, interval, fmt="o", capsize=3, color=color, label=label)
        text = result.model + (f", {result.crops} crops" if result.crops > 1 else "")
        # The name is on the side with more room.
        side, align = (8, "left") if cost**2 < low * high else (-8, "right")
        axes.annotate(
            text, (cost, error), (side, 3), textcoords="offset points", ha=align, fontsize=8, parse_math=False
        )
    axes.set_xscale("log")
    axes.set_xlim(low, high)
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 200 * low else (1,)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(EngFormatter())
    axes.grid(alpha=0.3)
