"""The roofline plot of `benchmarks/inference.py`, from the numbers that it left.

    PYTHONPATH=. python benchmarks/roofline.py docs/inference.csv docs/roofline.png

Roofs are the medians of the rates measured in that run. A point is a side: its GFLOP/s over the GFLOP for each byte
that it has to move at least, every weight read once a pass and the output of every convolution written and read once.
Ticks below are the network's parts by the same count, with float32 weights of the fused network: none of them was
timed by itself. (Extra `data`.)
"""

import argparse
import csv
import statistics
from collections.abc import Sequence

from polynet_keras.models.cost import StageCost, network_cost

FUSED_GROWTH = 120.6 / 95.4
"""Of the parameters, where shared kernels become one for each normalization."""
ROOFS = {
    "int8": ("int8 product, {:.0f} GOP/s", ":"),
    "conv": ("1×1 convolution of oneDNN, {:.0f} GFLOP/s", "-"),
    "sgemm": ("sgemm of PyTorch, {:.0f} GFLOP/s", "--"),
}
"""Labels and styles of the rates that a run may have measured."""


def intensity(parts: Sequence[StageCost], batch: int, width: int = 4) -> float:
    """FLOP a byte: `width` bytes for each weight and value."""
    macs = batch * sum(part.macs for part in parts)
    values = FUSED_GROWTH * sum(part.parameters for part in parts)
    return 2 * macs / (width * (values + 2 * batch * sum(part.activations for part in parts)))


def draw(path: str, numbers: dict[tuple[int, str], list[float]], parts: Sequence[StageCost], title: str) -> None:
    """Draws `numbers`: for each batch and side seconds an image, and the rates."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    import numpy as np

    median = {}
    for (_, name), values in numbers.items():
        median.setdefault(name, []).extend(values)
    rates = {name: statistics.median(median[name]) for name in ROOFS if name in median}
    triad = statistics.median(median["triad"])
    gflop = 2 * sum(part.macs for part in parts) / 1e9
    figure, axes = plt.subplots(figsize=(11, 7))
    x = np.geomspace(1, 2000, 400)
    for name, rate in rates.items():
        label, style = ROOFS[name]
        axes.plot(x, np.minimum(x * triad, rate), "k", linestyle=style, linewidth=1, label=label.format(rate))
    axes.annotate(f"triad, {triad:.0f} GB/s", (2.0, 2.2 * triad), rotation=35, fontsize=8)
    colours = plt.get_cmap("tab20")
    names = list(dict.fromkeys(name for _, name in numbers if name not in ("triad", *ROOFS)))
    batches = sorted({batch for batch, _ in numbers})
    for number, name in enumerate(names):
        for batch, marker in zip(batches, "os^v", strict=False):
            if (batch, name) in numbers:
                width = 1 if "int8" in name else 4
                rate = gflop / statistics.median(numbers[batch, name])
                label = name if batch == batches[0] else None
                place = intensity(parts, batch, width)
                axes.plot(place, rate, marker, color=colours(number), markersize=7, label=label)
    bottom = 40
    for part in parts[:-1]:
        for batch, height in zip(batches, (bottom * 1.1, bottom * 1.45), strict=False):
            place = intensity([part], batch)
            axes.plot(place, height, "|", color="grey", markersize=10)
            axes.annotate(part.name, (place, height * 1.06), rotation=60, fontsize=6, color="grey")
    axes.set(xscale="log", yscale="log", xlim=(2, 2000), ylim=(bottom, 2 * max(rates.values())))
    axes.set_xlabel(
        f"FLOP a byte (marks: batch {' and '.join(f'{b} {m}' for b, m in zip(batches, '○□', strict=False))})"
    )
    axes.set_ylabel("GFLOP/s")
    axes.set_title("PolyNet G5, inference", fontsize=11)
    figure.text(0.01, 0.01, title, fontsize=5)
    axes.legend(fontsize=7, loc="center left", bbox_to_anchor=(1.0, 0.5))
    figure.tight_layout(rect=(0, 0.02, 1, 1))
    figure.savefig(path, dpi=110)


def read(path: str) -> dict[tuple[int, str], list[float]]:
    numbers: dict[tuple[int, str], list[float]] = {}
    with open(path) as file:
        for row in csv.DictReader(file):
            numbers.setdefault((int(row["batch"]), row["side"]), []).append(float(row["value"]))
    return numbers


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("csv")
    parser.add_argument("png")
    parser.add_argument("--image_size", type=int, default=331)
    parser.add_argument("--structure", default="polynet-g5")
    parser.add_argument("--title", default="")
    settings = parser.parse_args()
    size = settings.image_size
    draw(
        settings.png, read(settings.csv), network_cost(settings.structure, input_shape=(size, size, 3)), settings.title
    )


if __name__ == "__main__":
    main()
