"""Plots a run's curves over the epochs."""

import os
from pathlib import Path

from polynet_keras.training.runs.history import read_history

PANELS = ("loss", "accuracy", "learning_rate", "drop_rate")


def plot_curves(history_file: str | os.PathLike, picture_file: str | os.PathLike) -> None:
    """Plots the `PANELS` columns of a `history.csv`, one point per epoch, with the `val_` twins of loss and accuracy.

    A line marks the chosen epoch, if there is one.

    Raises:
        ValueError: the file is not a history, or has no epoch.
    """
    # The object interface draws without pyplot's global state and without a display.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = read_history(Path(history_file))
    if not rows:
        raise ValueError(f"{os.fspath(history_file)} has no epoch to draw")
    best = rows[-1].get("best_epoch")
    epochs = [int(row["epoch"]) + 1 for row in rows]
    panels = [panel for panel in PANELS if panel in rows[0]]
    figure = Figure(figsize=(5 * len(panels), 4), layout="constrained")
    FigureCanvasAgg(figure)
    for axes, metric in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        for column, label in ((metric, "training"), (f"val_{metric}", "validation" if best else "held out")):
            if column in rows[0]:
                axes.plot(epochs, [float(row[column]) for row in rows], marker="o", markersize=3, label=label)
        if best:
            axes.axvline(int(best) + 1, color="gray", linestyle=":", label="best epoch")
        axes.set_xlabel("epoch")
        axes.set_title(metric.replace("_", " "))
        axes.grid(alpha=0.3)
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.legend()
    # One wild epoch must not flatten the others.
    figure.axes[0].set_yscale("log")
    figure.savefig(picture_file, dpi=120)
