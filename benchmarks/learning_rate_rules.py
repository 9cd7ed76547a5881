"""What rules propose after a range test of the learning rate, and what trainings with these rates come to.

    pip install scikit-image scikit-learn elpv-dataset foolbox --no-deps
    python benchmarks/learning_rate_rules.py --data digits tiles cells --optimizers rmsprop adamw sgd --seeds 0

`tiles` and `cells` are those of photo_recipes.py, which says what they are. For each set, optimizer and seed the range
test runs once, and the same recipe trains with each rate of a grid; a training that diverges counts as 0 %. The top-1
of a proposed rate is interpolated between its neighbours in the grid, over the logarithm of the rate. For each rule the
script prints how far its top-1 is behind that of the best rate in the grid, in points.

Everything measured is kept in `--output`; `python benchmarks/learning_rate_rules.py --kept FOLDER` prints the table
again, after a change of a rule, and trains nothing.
"""

import argparse
import csv
import os
import statistics
import sys
import tempfile
from collections import defaultdict
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np
from photo_recipes import SETS

from polynet_keras.training import PRESETS
from polynet_keras.training.runs.divergence import DivergenceError
from polynet_keras.training.runs.learning_rate_range import LearningRateRange

GRID = tuple(float(f"{rate:.1e}") for rate in np.logspace(-4, 0, 9))
FIRST = 10
"""Updates at the beginning of which no rule makes anything: their smoothed loss is that of a few batches."""


def smoothed(found, share):
    """The bias-corrected exponential moving average of the losses."""
    value, values = 0.0, []
    for number, loss in enumerate(found.losses, 1):
        value = share * value + (1 - share) * loss
        values.append(value / (1 - share**number))
    return np.array(values)


def lowest(share, divisor):
    def rule(found):
        losses = smoothed(found, share)[FIRST:]
        return found.rates[FIRST + int(losses.argmin())] / divisor if len(losses) else None

    return rule


def steepest(share):
    def rule(found):
        slopes = np.gradient(smoothed(found, share), np.log(found.rates))[FIRST:]
        return found.rates[FIRST + int(slopes.argmin())] if len(slopes) else None

    return rule


def valley(found):
    """fastai's default (fastai/callback/schedule.py): a point in the longest falling subsequence of smoothed losses."""
    losses = smoothed(found, 0.98)[FIRST:-5]
    if not len(losses):
        return None
    lengths = np.ones(len(losses), int)
    for end in range(1, len(losses)):
        lengths[end] = lengths[:end][losses[:end] > losses[end]].max(initial=0) + 1
    end = int(lengths.argmax())
    third = int(lengths[end]) / 3
    return found.rates[FIRST + max(end - int(lengths[end]) + int(third) + int(third / 2), 0)]


RULES = {
    "ours": lambda found: found.proposal,
    "valley": valley,
    **{f"steepest, {share}": steepest(share) for share in (0.98, 0.9)},
    **{f"lowest / {divisor}, {share}": lowest(share, divisor) for share in (0.98, 0.9) for divisor in (10, 3, 2, 1)},
}


def measure(arguments):
    """Writes the range tests and the trainings into the folder."""
    from polynet_keras.training import find_learning_rate, train

    arguments.output.mkdir()
    with tempfile.TemporaryDirectory() as folder, open(arguments.output / "trainings.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("data", "optimizer", "seed", "learning_rate", "top1"))
        for name in arguments.data:
            data = name
            if name in SETS:
                data = Path(folder, name)
                SETS[name](data)
            for optimizer in arguments.optimizers:
                for seed in arguments.seeds:
                    settings = {"data": str(data), "epochs": arguments.epochs, "seed": seed}
                    recipe = PRESETS["digits"].recipe.replaced(settings | {"optimizer.name": optimizer})
                    found = find_learning_rate(recipe)
                    with open(arguments.output / f"{name} {optimizer} {seed}.csv", "w", newline="") as test:
                        csv.writer(test).writerows(zip(found.rates, found.losses, strict=True))
                    for rate in sorted({*GRID, recipe.schedule.learning_rate}):
                        run = Path(folder, f"{name} {optimizer} {seed} {rate}")
                        try:
                            card = train(recipe.replaced({"schedule.learning_rate": rate}), run).card
                            top1 = 100 * card.held_out_correct / card.held_out
                        except DivergenceError:
                            top1 = 0.0
                        writer.writerow((name, optimizer, seed, rate, top1))
                        file.flush()
                        print(f"{name:7} {optimizer:8} seed {seed} rate {rate:.2g}: {top1:.1f} %", flush=True)


def show(folder):
    """Prints the proposals of each range test, and the table of the rules."""
    own = PRESETS["digits"].recipe.schedule.learning_rate
    top1 = defaultdict(dict)
    with open(folder / "trainings.csv") as file:
        for row in csv.DictReader(file):
            top1[f"{row['data']} {row['optimizer']} {row['seed']}"][float(row["learning_rate"])] = float(row["top1"])
    behind = defaultdict(list)
    for name, grid in top1.items():
        with open(folder / f"{name}.csv") as file:
            rates, losses = zip(*[map(float, row) for row in csv.reader(file)], strict=True)
        found = LearningRateRange(rates, losses, 100)
        best = max(grid, key=grid.get)
        print(f"\n{name}: best of the grid {grid[best]:.1f} % at {best:.2g}")
        logs, values = np.log(sorted(grid)), [grid[rate] for rate in sorted(grid)]
        for rule, propose in {**RULES, "the recipe's own": lambda _: own}.items():
            rate = propose(found)
            if rate is None:
                print(f"  {rule:18} proposes nothing")
                continue
            reached = float(np.interp(np.log(rate), logs, values))
            behind[rule].append(grid[best] - reached)
            print(f"  {rule:18} {rate:8.2g}: {reached:5.1f} %")
    print(f"\n{'rule':18} {'proposals':>9} {'mean behind':>12} {'median':>7} {'most':>6}")
    for rule, points in behind.items():
        mean, median = statistics.mean(points), statistics.median(points)
        print(f"{rule:18} {len(points):>9} {mean:12.1f} {median:7.1f} {max(points):6.1f}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="+", default=["digits", "tiles", "cells"], choices=["digits", *SETS])
    parser.add_argument("--optimizers", nargs="+", default=["rmsprop", "adamw", "sgd"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--output", type=Path, default=Path("learning_rate_rules"), help="a new folder")
    parser.add_argument("--kept", type=Path, help="a folder that was kept")
    arguments = parser.parse_args()
    if not arguments.kept:
        measure(arguments)
    show(arguments.kept or arguments.output)


if __name__ == "__main__":
    sys.exit(main())
