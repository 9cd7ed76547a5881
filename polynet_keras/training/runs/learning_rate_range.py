"""The results of a range test of the learning rate, the rate that it proposes, and both as a table and a plot."""

import csv
import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from polynet_keras.basics.files import written_whole
from polynet_keras.cluster.cluster import Cluster

SMOOTHING = 0.9
"""The share of the previous mean in the smoothed loss, which is corrected for its start at zero."""
FIRST_SHARE = 0.1
"""The share of updates at the beginning that the proposal ignores: their smoothed loss is that of a few batches."""


@dataclass(frozen=True)
class LearningRateRange:
    """A range test: the loss of each update, at learning rates that grow.

    Attributes:
        rates: learning rates of the updates, ascending.
        losses: losses of the training batches, before the updates.
        updates: number of updates that a test without divergence has.

    Examples:
        >>> rates = tuple(10 ** (update / 10 - 6) for update in range(60))
        >>> losses = tuple(abs(update - 40) / 40 for update in range(60))
        >>> found = LearningRateRange(rates, losses, updates=60)
        >>> f"{found.proposal:.0e}"
        '4e-02'
    """

    rates: tuple[float, ...]
    losses: tuple[float, ...]
    updates: int

    @cached_property
    def smoothed(self) -> np.ndarray:
        """The exponential moving average of the losses: float64 (updates,)."""
        values, value = [], 0.0
        for number, loss in enumerate(self.losses, 1):
            value = SMOOTHING * value + (1 - SMOOTHING) * loss
            values.append(value / (1 - SMOOTHING**number))
        return np.array(values)

    @cached_property
    def proposal(self) -> float | None:
        """The learning rate to train with; None if the loss diverged too soon, or never fell.

        It is the rate at which the smoothed loss is lowest (`benchmarks/learning_rate_rules.py` compares rules).
        """
        first = int(self.updates * FIRST_SHARE)
        losses = self.smoothed[first:]
        lowest = int(losses.argmin()) if len(losses) else 0
        return self.rates[first + lowest] if lowest else None


def check_one_worker() -> None:
    """Refuses a range test if this process is one of several workers."""
    if Cluster.from_environment().is_distributed:
        raise ValueError(
            "the range test of the learning rate runs on one worker: start it on one worker, and use its proposal "
            "on all; the batch size is that of all workers together"
        )


def write_range(found: LearningRateRange, table: str | os.PathLike) -> Path:
    """Writes the columns learning_rate, loss, smoothed_loss as CSV, and a plot of them beside the file.

    Args:
        found: results of the test.
        table: ends in `.csv`; the plot has the same name with `.png`.

    Returns:
        The path of the plot.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    table = Path(table)
    with written_whole(table) as partial, open(partial, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("learning_rate", "loss", "smoothed_loss"))
        writer.writerows(zip(found.rates, found.losses, found.smoothed.tolist(), strict=True))
    figure = Figure(figsize=(6, 4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    axes.plot(found.rates, found.losses, alpha=0.3, label="loss of a batch")
    axes.plot(found.rates, found.smoothed, label="smoothed")
    if found.proposal is not None:
        axes.axvline(found.proposal, color="gray", linestyle=":", label=f"proposal: {found.proposal:.2g}")
    axes.set_xscale("log")
    axes.set_xlabel("learning rate")
    # The end of a test that diverged must not flatten the rest.
    low, high = found.smoothed.min(), np.median(found.losses[: max(1, len(found.losses) // 2)])
    margin = max(high - low, 0.1 * abs(high)) / 2
    axes.set_ylim(low - margin, high + 2 * margin)
    axes.set_title("training loss")
    axes.grid(alpha=0.3)
    axes.legend()
    with written_whole(table.with_suffix(".png")) as partial:
        figure.savefig(partial, dpi=120)
    return table.with_suffix(".png")
