"""The curves of a run: loss and accuracy over epochs, as a picture."""

import csv
import os


def plot_curves(history_file: str | os.PathLike, picture_file: str | os.PathLike) -> None:
    """Draws the columns `loss`, `accuracy` and their `val_` twins of a `history.csv`, one point an epoch."""
    # The object interface draws without pyplot's global state and without a display.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with open(history_file, newline="") as file:
        rows = list(csv.DictReader(file))
    epochs = [int(row["epoch"]) + 1 for row in rows]
    figure = Figure(figsize=(10, 4), layout="constrained")
    FigureCanvasAgg(figure)
    for axes, metric in zip(figure.subplots(1, 2), ("loss", "accuracy"), strict=True):
        for column, label in ((metric, "training"), (f"val_{metric}", "held out")):
            axes.plot(epochs, [float(row[column]) for row in rows], marker="o", markersize=3, label=label)
        axes.set_xlabel("epoch")
        axes.set_title(metric)
        axes.grid(alpha=0.3)
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.legend()
    # One wild epoch must not flatten the others.
    figure.axes[0].set_yscale("log")
    figure.savefig(picture_file, dpi=120)
