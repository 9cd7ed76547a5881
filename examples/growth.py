"""Growth by insertion against training from scratch, on Fashion-MNIST, at equal compute.

    python examples/growth.py FOLDER

trains, with three seeds, a PolyNet of 8 units from scratch for 3 epochs; and an Inception-ResNet 1-2-1 for 3 epochs,
which is grown into the same PolyNet and trained for one epoch more: 1.4 % fewer multiply-accumulates. That takes some
half an hour on two cores, Debian's `dataset-fashion-mnist` and the extra `data`; runs that are done are not done again.
It prints the held-out errors and their difference; docs/growth.md has what came out.
"""

import dataclasses
import sys
from pathlib import Path

import keras
from absl import logging

from polynet_keras.models import network_cost
from polynet_keras.pretrained import ModelCard
from polynet_keras.studies import confidence_interval
from polynet_keras.training import Recipe, ScheduleSettings, Start, grown, plan_insertion, train

SMALL = "1 x [ir] | 2 x [ir] | 1 x [ir]"
LARGE = "2 x [2-way] | 2 x [poly-3, 2-way] | 1 x [poly-3, 2-way]"
RECIPE = Recipe(
    data="fashion_mnist",
    structure=LARGE,
    width=0.25,
    batch_size=128,
    epochs=3,
    schedule=ScheduleSettings("cosine", learning_rate=0.003),
)


def error(recipe: Recipe, folder: Path) -> float:
    """Of the run, in percent of the held-out images; trained unless it is done."""
    keras.backend.clear_session()
    card = ModelCard.load(folder) if Path(folder, "model.json").exists() else train(recipe, folder).card
    return 100 * (1 - card.held_out_correct / card.held_out)


def grown_error(recipe: Recipe, folder: Path) -> tuple[float, float]:
    """Of the small net, and of the one that it is grown into."""
    small_error = error(dataclasses.replace(recipe, structure=SMALL), folder / "small")
    file = folder / "grown.keras"
    if not file.is_file():
        small = keras.saving.load_model(folder / "small" / "model.keras")
        keras.utils.set_random_seed(recipe.seed)
        net = grown(small, LARGE, width=recipe.width, residual_scale=recipe.residual_scale, carry_optimizer=True)
        net.save(file)
    start = Start(str(file), carry_optimizer=True)
    return small_error, error(dataclasses.replace(recipe, epochs=1, start=start), folder / "grown")


def macs(structure: str) -> float:
    """Millions, of one image."""
    parts = network_cost(structure, input_shape=(75, 75, 1), width=RECIPE.width, classes=10)
    return sum(part.macs for part in parts) / 1e6


def main(folder: str, seeds: int = 3) -> None:
    logging.set_verbosity(logging.INFO)
    print(plan_insertion(SMALL, LARGE))
    print(f"\nfrom scratch 3 × {macs(LARGE):.1f}, grown 3 × {macs(SMALL):.1f} + {macs(LARGE):.1f} MMAC an image\n")
    differences = []
    print("| seed | small net | from scratch | grown | difference |\n| --- | ---: | ---: | ---: | ---: |")
    for seed in range(seeds):
        recipe = dataclasses.replace(RECIPE, seed=seed)
        scratch = error(recipe, Path(folder, f"scratch-{seed}"))
        small, large = grown_error(recipe, Path(folder, f"grown-{seed}"))
        differences.append(large - scratch)
        print(f"| {seed} | {small:.2f} | {scratch:.2f} | {large:.2f} | {large - scratch:+.2f} |", flush=True)
    mean, low, high = confidence_interval(differences)
    print(f"\nerror, grown minus from scratch: {mean:+.2f} points, 95 % interval {low:+.2f} to {high:+.2f}")


if __name__ == "__main__":
    main(*sys.argv[1:])
