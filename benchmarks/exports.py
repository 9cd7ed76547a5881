"""Exports of one model side by side: their size, the time of an image, and what their cards say they get right.

python benchmarks/exports.py exported exported-int8 exported-onnx-int8 --threads 1
"""

import argparse
import time

import numpy as np

from polynet_keras.cli.table import print_table
from polynet_keras.deployment import load_exported

HEADER = ("export", "size, MB", "ms an image", "right", "points lost", "95 % interval")
WARM_UP = 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("exports", nargs="+", metavar="FOLDER")
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    models = [load_exported(folder, arguments.threads) for folder in arguments.exports]
    image = np.random.default_rng(0).normal(size=(1, *_shape(models[0].card.preprocessing))).astype("float32")
    seconds: list[list[float]] = [[] for _ in models]
    for _ in range(WARM_UP + arguments.rounds):  # by turns: what else the machine does meets all of them
        for model, times in zip(models, seconds, strict=True):
            start = time.perf_counter()
            model.run(image)
            times.append(time.perf_counter() - start)
    rows = []
    for model, times in zip(models, seconds, strict=True):
        card, top1 = model.card, model.card.comparison.top1
        counted = ("", "", "")
        if top1 is not None:
            right = f"{top1.exported} of {card.comparison.images}, Keras {top1.original}"
            counted = (right, f"{top1.drop:.2f}", f"{top1.drop_low:.2f} to {top1.drop_high:.2f}")
        took = 1000 * np.array(times[WARM_UP:])
        milliseconds = f"{np.median(took):.2f}, best {took.min():.2f}"
        rows.append((f"{card.format}, {card.precision}", f"{card.size / 1e6:.1f}", milliseconds, *counted))
    print_table(HEADER, rows)


def _shape(preprocessing) -> tuple[int, int, int]:
    return preprocessing.image_size, preprocessing.image_size, preprocessing.channels


if __name__ == "__main__":
    main()
