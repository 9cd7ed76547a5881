"""What rules propose after a range test of the learning rate, and what trainings with these rates come to.

    pip install scikit-image scikit-learn elpv-dataset foolbox --no-deps
    python benchmarks/learning_rate_rules.py --data digits tiles cells --optimizers rmsprop adamw sgd --seeds 0 1

`tiles` and `cells` are those of photo_recipes.py, which says what they are. For each set, optimizer and seed the range
test runs once. Then the same recipe trains with the rate that each rule proposes, and with the recipe's own. Printed is
the top-1 of the held-out images, and at the end for each rule how far it is from the best rate of its row, in points.

`python benchmarks/learning_rate_rules.py --from rows.csv` prints that table of rows that were kept (`--output`).
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

FIRST = 10
"""Updates at the beginning of which nothing is made: the smoothed loss is that of a few batches."""


def lowest(found):
    return FIRST + int(found.smoothed[FIRST:].argmin())


def steepest(found):
    return found.rates[FIRST + int(np.gradient(found.smoothed, np.log(found.rates))[FIRST:].argmin())]


RULES = {
    "valley": lambda found: found.proposal,
    "steepest": steepest,
    "lowest / 10": lambda found: found.rates[lowest(found)] / 10,
    "lowest / 3": lambda found: found.rates[lowest(found)] / 3,
}


def measure(arguments):
    from polynet_keras.training import PRESETS, find_learning_rate, train

    for name in arguments.data:
        with tempfile.TemporaryDirectory() as folder:
            data = name
            if name in SETS:
                data = Path(folder, name)
                SETS[name](data)
            for optimizer in arguments.optimizers:
                for seed in arguments.seeds:
                    settings = {"data": str(data), "epochs": arguments.epochs, "seed": seed}
                    recipe = PRESETS["digits"].recipe.replaced(settings | {"optimizer.name": optimizer})
                    found = find_learning_rate(recipe)
                    rates = {rule: propose(found) for rule, propose in RULES.items()}
                    rates["the recipe's"] = recipe.schedule.learning_rate
                    for rule, rate in rates.items():
                        run = Path(folder, f"{optimizer} {seed} {rule}".replace("/", "over"))
                        card = train(recipe.replaced({"schedule.learning_rate": float(rate)}), run).card
                        yield name, optimizer, seed, rule, rate, 100 * card.held_out_correct / card.held_out


def summary(rows):
    top1 = defaultdict(dict)
    for name, optimizer, seed, rule, _, right in rows:
        top1[name, optimizer, int(seed)][rule] = float(right)
    rules = list(next(iter(top1.values())))
    print(f"\n{'rule':14} {'mean top-1':>10} {'median behind':>14} {'most behind':>12} {'best of row':>12}")
    for rule in rules:
        behind = [max(row.values()) - row[rule] for row in top1.values()]
        mean = statistics.mean(row[rule] for row in top1.values())
        best = sum(one == 0 for one in behind)
        print(f"{rule:14} {mean:10.1f} {statistics.median(behind):14.1f} {max(behind):12.1f} {best:9} of {len(behind)}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="+", default=["digits", "tiles", "cells"], choices=["digits", *SETS])
    parser.add_argument("--optimizers", nargs="+", default=["rmsprop", "adamw", "sgd"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1])
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--output", type=Path, default=Path("learning_rate_rules.csv"))
    parser.add_argument("--from", dest="kept", type=Path, help="a table that was kept")
    arguments = parser.parse_args()
    if arguments.kept:
        with open(arguments.kept) as file:
            summary(list(csv.reader(file))[1:])
        return
    rows = []
    with open(arguments.output, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("data", "optimizer", "seed", "rule", "learning_rate", "top1"))
        for row in measure(arguments):
            rows.append(row)
            writer.writerow(row)
            file.flush()
            print("{:7} {:8} seed {} {:14} rate {:.2g}: {:.1f} %".format(*row), flush=True)
    summary(rows)


if __name__ == "__main__":
    sys.exit(main())
